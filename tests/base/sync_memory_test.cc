#include "base/sync_memory.h"

#include <cerrno>

#include "tests/catch.h"

using namespace vc;

namespace {

int calls = 0;

// Is interrupted twice, fails once, and then succeeds: the kernel reports a failure only once.
int sync_once_failing(int /*fd*/) {
  ++calls;
  errno = calls <= 2 ? EINTR : EIO;
  return calls <= 3 ? -1 : 0;
}

int sync_interrupted(int /*fd*/) {
  errno = EINTR;
  return ++calls < 3 ? -1 : 0;
}

}  // namespace

TEST_CASE("the error of a failed flush is kept", "[sync]") {
  calls = 0;
  SyncMemory memory;
  CHECK(memory.run(sync_once_failing, 0) == EIO);
  CHECK(calls == 3);
  // The kernel would report success.
  CHECK(memory.run(sync_once_failing, 0) == EIO);
  CHECK(sync_once_failing(0) == 0);
}

TEST_CASE("an interrupted flush is repeated, and is no failure", "[sync]") {
  calls = 0;
  SyncMemory memory;
  CHECK(memory.run(sync_interrupted, 0) == 0);
  CHECK(calls == 3);
}
