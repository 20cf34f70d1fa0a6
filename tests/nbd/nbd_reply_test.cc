// Whether the chunks of an answer match the request.

#include "nbd/reply.h"

#include <cerrno>

#include "tests/catch_text.h"

using namespace vc;

using nbd::NbdReply;

namespace {

using Chunks = std::vector<std::pair<uint64_t, uint64_t>>;

// Returns the errno of a successful read of [1000, 2000) with these chunks.
int errnum_of(const Chunks& chunks) {
  NbdReply reply;
  reply.expect(1000, 1000);
  for (const auto& [at, length] : chunks) reply.add(at, length);
  CHECK_FALSE(reply.done());
  reply.complete(0);
  CHECK(reply.done());
  return reply.errnum();
}

}  // namespace

TEST_CASE("an answer whose chunks cover the request once is accepted") {
  CHECK(errnum_of({{1000, 1000}}) == 0);
  CHECK(errnum_of({{1000, 1}, {1001, 999}}) == 0);
  CHECK(errnum_of({{1999, 1}, {1500, 499}, {1000, 250}, {1250, 250}}) == 0);
}

TEST_CASE("an answer with gaps, overlaps or unrequested bytes is an error") {
  CHECK(errnum_of({}) == EPROTO);
  CHECK(errnum_of({{1000, 999}}) == EPROTO);
  CHECK(errnum_of({{1001, 999}}) == EPROTO);
  CHECK(errnum_of({{1000, 1000}, {1000, 1000}}) == EPROTO);
  CHECK(errnum_of({{1500, 500}, {1400, 200}, {1000, 400}}) == EPROTO);
  CHECK(errnum_of({{1400, 200}, {1500, 500}, {1000, 400}}) == EPROTO);
  CHECK(errnum_of({{1000, 600}, {1500, 500}}) == EPROTO);
  CHECK(errnum_of({{1000, 1001}}) == EPROTO);
  CHECK(errnum_of({{999, 1001}}) == EPROTO);
  CHECK(errnum_of({{1000, 1000}, {1500, 0}}) == EPROTO);
  CHECK(errnum_of({{1000, UINT64_MAX}}) == EPROTO);
}

TEST_CASE("an answer with too many separate chunks takes no memory") {
  NbdReply reply;
  reply.expect(0, 1 << 20);
  for (uint64_t at = 1; at < 1 << 20; at += 2) reply.add(at, 1);
  reply.complete(0);
  CHECK(reply.errnum() == EPROTO);
  CHECK(reply.error("read").message().find("read: the server's answer") == 0);
}

TEST_CASE("the errno of the server is returned") {
  NbdReply reply;
  reply.expect(0, 100);
  reply.complete(ENOSPC);
  CHECK(reply.errnum() == ENOSPC);
  CHECK(reply.error("write").message() == "write: No space left on device");
  reply.reset();
  CHECK_FALSE(reply.done());
  reply.complete(0);
  CHECK(reply.errnum() == 0);
}
