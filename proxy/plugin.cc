// nbdkit-checked-nbd-plugin: serves the disk of another NBD server.
//
// Unlike nbdkit-nbd-plugin it waits only as long as it is told to, and believes only answers that
// match the request. It is for virt-compact, which learns from a note why the server was given up.

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/printable.h"
#include "base/result.h"
#include "base/stop.h"
#include "nbd/endpoint.h"
#include "nbd/proxy_note.h"
#include "nbd/shared_connection.h"
#include "nbd/tuning.h"
#include "nbdkit/serving/guarded.h"

using namespace vc;

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

namespace {

// nbdkit's limits of a preferred block size.
constexpr uint64_t kSmallestPreferred = 512;
constexpr uint64_t kLargestPreferred = 32 << 20;

struct Parameters {
  nbd::NbdTarget target;
  std::chrono::seconds timeout = nbd::NbdTuning().timeout;
  std::string note;  // the path of a ProxyNote; empty: none
};

Parameters parameters;
// Declared in this order: the connection refers to the others.
const Cancel kNever;
const Stop kStop(kNever);
std::shared_ptr<nbd::NbdEndpoint> endpoint;
std::unique_ptr<nbd::NbdSharedConnection> server;

void tell(const Error& error) {
  const auto noted = parameters.note.empty()
                         ? Result<void>(fail(error))
                         : nbd::ProxyNote::write(parameters.note, printable(error.message()));
  if (!noted) nbdkit_error("%s", printable(error.message()).c_str());
}

// What the protocol has a number for.
int protocol_errno(int errnum) {
  switch (errnum) {
    case EPERM:
    case ENOMEM:
    case EINVAL:
    case ENOSPC:
    case EOVERFLOW:
    case EOPNOTSUPP:
      return errnum;
    default:
      return EIO;
  }
}

// Calls `work`, which returns a Result<void>, and answers to nbdkit. Of errors of the server, the
// client learns the errno only.
template <typename Work>
int answer(Work work) noexcept {
  int err = 0;
  const int value = nbdkit::guarded(-1, &err, [&] {
    const Result<void> result = work();
    if (result) return 0;
    nbdkit_debug("%s", printable(result.error().message()).c_str());
    err = protocol_errno(result.error().errnum());
    return -1;
  });
  if (value == -1) nbdkit_set_error(err);
  return value;
}

int on_config(const char* key, const char* value) noexcept {
  return nbdkit::guarded(-1, [&] {
    const std::string_view name = key;
    if (name == "uri") {
      parameters.target.uri = value;
      return 0;
    }
    if (name == "note") {
      parameters.note = value;
      return 0;
    }
    if (name == "timeout") {
      unsigned seconds = 0;
      if (nbdkit_parse_unsigned(key, value, &seconds) == -1) return -1;
      parameters.timeout = std::chrono::seconds(seconds);
      return 0;
    }
    nbdkit_error("unknown parameter '%s'", printable(name).c_str());
    return -1;
  });
}

int on_config_complete() noexcept {
  if (!parameters.target.uri.empty()) return 0;
  nbdkit_error("no server is given: give its URI, as in: nbdkit checked-nbd nbd://localhost");
  return -1;
}

// Threads start here, not before nbdkit forks.
int on_after_fork() noexcept {
  return nbdkit::guarded(-1, [] {
    const auto connect = []() -> Result<void> {
      ASSIGN_OR_RETURN(endpoint, nbd::NbdEndpoint::open(parameters.target, kStop));
      ASSIGN_OR_RETURN(server, nbd::NbdSharedConnection::open(*endpoint, parameters.timeout, tell));
      return {};
    };
    const auto connected = connect();
    if (connected) return 0;
    tell(connected.error());
    return -1;
  });
}

void on_unload() noexcept {
  server.reset();
  endpoint.reset();
}

void* on_open(int /*readonly*/) noexcept {
  return NBDKIT_HANDLE_NOT_NEEDED;
}

int64_t on_get_size(void* /*handle*/) noexcept {
  return static_cast<int64_t>(server->limits().size);
}

int on_can_write(void* /*handle*/) noexcept {
  return server->limits().read_only ? 0 : 1;
}

int on_can_flush(void* /*handle*/) noexcept {
  return server->limits().can_flush ? 1 : 0;
}

int on_can_trim(void* /*handle*/) noexcept {
  return server->limits().can_trim ? 1 : 0;
}

int on_can_zero(void* /*handle*/) noexcept {
  return server->limits().can_zero ? 1 : 0;
}

int on_can_fast_zero(void* /*handle*/) noexcept {
  return server->limits().can_fast_zero ? 1 : 0;
}

int on_can_extents(void* /*handle*/) noexcept {
  return server->tells_allocation() ? 1 : 0;
}

int on_can_fua(void* /*handle*/) noexcept {
  if (server->limits().can_fua) return NBDKIT_FUA_NATIVE;
  return server->limits().can_flush ? NBDKIT_FUA_EMULATE : NBDKIT_FUA_NONE;
}

// All clients share one connection to the server: a flush covers them all.
int on_can_multi_conn(void* /*handle*/) noexcept {
  return 1;
}

int on_block_size(void* /*handle*/, uint32_t* minimum, uint32_t* preferred,
                  uint32_t* maximum) noexcept {
  const nbd::NbdLimits& limits = server->limits();
  const uint64_t largest = std::min<uint64_t>(limits.maximum, UINT32_MAX);
  *minimum = static_cast<uint32_t>(limits.minimum);
  *preferred =
      static_cast<uint32_t>(std::clamp(limits.preferred, kSmallestPreferred, kLargestPreferred));
  *maximum = static_cast<uint32_t>(std::max<uint64_t>(largest / *minimum * *minimum, *preferred));
  return 0;
}

int on_pread(void* /*handle*/, void* buffer, uint32_t count, uint64_t offset,
             uint32_t /*flags*/) noexcept {
  return answer([&] { return server->read({static_cast<std::byte*>(buffer), count}, offset); });
}

int on_pwrite(void* /*handle*/, const void* buffer, uint32_t count, uint64_t offset,
              uint32_t flags) noexcept {
  return answer([&] {
    return server->write({static_cast<const std::byte*>(buffer), count}, offset,
                         (flags & NBDKIT_FLAG_FUA) != 0);
  });
}

// nbdkit 1.32 would write the zeros itself, in a way that loses data, if a zero request failed with
// EOPNOTSUPP for another reason than that it is not fast.
int on_zero(void* /*handle*/, uint32_t count, uint64_t offset, uint32_t flags) noexcept {
  const bool fast = (flags & NBDKIT_FLAG_FAST_ZERO) != 0;
  return answer([&]() -> Result<void> {
    auto done = server->zero(count, offset,
                             {.fast = fast,
                              .allocate = (flags & NBDKIT_FLAG_MAY_TRIM) == 0,
                              .fua = (flags & NBDKIT_FLAG_FUA) != 0});
    if (!done && !fast && done.error().errnum() == EOPNOTSUPP)
      return fail(Error::protocol(EIO, done.error().message()));
    return done;
  });
}

int on_trim(void* /*handle*/, uint32_t count, uint64_t offset, uint32_t flags) noexcept {
  return answer([&] { return server->trim(count, offset, (flags & NBDKIT_FLAG_FUA) != 0); });
}

int on_flush(void* /*handle*/, uint32_t /*flags*/) noexcept {
  return answer([] { return server->flush(); });
}

int on_extents(void* /*handle*/, uint32_t count, uint64_t offset, uint32_t flags,
               nbdkit_extents* extents) noexcept {
  static_assert(nbd::kStatusHole == NBDKIT_EXTENT_HOLE && nbd::kStatusZero == NBDKIT_EXTENT_ZERO);
  constexpr uint32_t kKnown = nbd::kStatusHole | nbd::kStatusZero;
  return answer([&]() -> Result<void> {
    ASSIGN_OR_RETURN(const auto stretches,
                     server->allocation(count, offset, (flags & NBDKIT_FLAG_REQ_ONE) != 0));
    for (const auto& it : stretches)
      if (nbdkit_add_extent(extents, it.at, it.length, it.flags & kKnown) == -1)
        return fail(Error::system(errno, "block status"));
    return {};
  });
}

nbdkit_plugin create_plugin() {
  nbdkit_plugin it{};
  it.name = "checked-nbd";
  it.longname = "nbdkit checked NBD plugin";
  it.version = VIRT_COMPACT_VERSION;
  it.description = "Serves the disk of another NBD server, and checks its answers.";
  it.magic_config_key = "uri";
  it.config_help =
      "[uri=]<URI>                (required) The server.\n"
      "timeout=<SECONDS>          How long to wait for an answer (default: 60, 0: no limit).\n"
      "note=<FILE>                Where to write why the server was given up.";
  it.config = on_config;
  it.config_complete = on_config_complete;
  it.after_fork = on_after_fork;
  it.unload = on_unload;
  it.open = on_open;
  it.get_size = on_get_size;
  it.block_size = on_block_size;
  it.can_write = on_can_write;
  it.can_flush = on_can_flush;
  it.can_trim = on_can_trim;
  it.can_zero = on_can_zero;
  it.can_fast_zero = on_can_fast_zero;
  it.can_extents = on_can_extents;
  it.can_fua = on_can_fua;
  it.can_multi_conn = on_can_multi_conn;
  it.pread = on_pread;
  it.pwrite = on_pwrite;
  it.zero = on_zero;
  it.trim = on_trim;
  it.flush = on_flush;
  it.extents = on_extents;
  return it;
}

nbdkit_plugin checked_nbd_plugin = create_plugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(checked_nbd_plugin)
