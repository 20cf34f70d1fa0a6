#include "plugin/requests.h"

#include <cerrno>
#include <cinttypes>
#include <span>
#include <vector>

#include "nbdkit/serving/cache_request.h"
#include "nbdkit/serving/extent_list.h"
#include "plugin/served_image.h"

namespace vc::plugin {

namespace {

void log_map(const qcow2::Disk& disk, uint64_t offset, uint64_t count) {
  constexpr size_t kMost = 64;  // lines
  std::vector<qcow2::Extent> extents;
  if (!disk.map(GuestOffset(offset), count, extents, kMost)) return;
  for (const auto& it : extents) {
    const auto line = [&](const char* kind) {
      nbdkit_debug("qcow2: read %#" PRIx64 "+%#" PRIx64 ": %s, depth %u", it.guest.value(),
                   it.length, kind, it.depth);
    };
    switch (it.kind) {
      case qcow2::ExtentKind::kData:
      case qcow2::ExtentKind::kCompressed:
        nbdkit_debug("qcow2: read %#" PRIx64 "+%#" PRIx64 ": %s, depth %u, host offset %#" PRIx64,
                     it.guest.value(), it.length,
                     it.kind == qcow2::ExtentKind::kData ? "data" : "compressed", it.depth,
                     it.host.value());
        break;
      case qcow2::ExtentKind::kZero:
        line("zero");
        break;
      case qcow2::ExtentKind::kUnallocated:
        line("unallocated");
        break;
    }
  }
}

int on_pread(void* handle, void* buffer, uint32_t count, uint64_t offset,
             uint32_t /*flags*/) noexcept {
  return guarded(-1, [&] {
    const ServedDisk& served = *connection_of(handle).served;
    if (qcow2_debug_read != 0) log_map(served.disk(), offset, count);
    return answer(served.read(GuestOffset(offset), {static_cast<std::byte*>(buffer), count}));
  });
}

int on_cache(void* handle, uint32_t count, uint64_t offset, uint32_t /*flags*/) noexcept {
  return guarded(-1, [&] {
    const ServedDisk& served = *connection_of(handle).served;
    return answer(nbdkit::cache_range(
        GuestOffset(offset), count,
        [&](GuestOffset at, std::span<std::byte> to) { return served.read(at, to); }));
  });
}

// Calls `change` with the connection's write path, and flushes if the flags ask for it.
template <typename Change>
int change_disk(void* handle, uint32_t flags, Change change) noexcept {
  return guarded(-1, [&] {
    Connection& connection = connection_of(handle);
    WritePath& path = *connection.served->write_path();
    connection.changed.store(true, std::memory_order_relaxed);
    auto result = change(path);
    if (result && (flags & NBDKIT_FLAG_FUA) != 0) result = path.flush();
    return answer(result);
  });
}

int on_pwrite(void* handle, const void* buffer, uint32_t count, uint64_t offset,
              uint32_t flags) noexcept {
  return change_disk(handle, flags, [&](WritePath& path) {
    return path.write(GuestOffset(offset), {static_cast<const std::byte*>(buffer), count});
  });
}

// Returns 1 if zeroing takes as long as writing, else 0. Returns -1 after an error.
int zero_is_slow(void* handle, uint32_t count, uint64_t offset) {
  const auto slow =
      connection_of(handle).served->write_path()->writer().zero_is_slow(GuestOffset(offset), count);
  if (slow) return *slow ? 1 : 0;
  report(slow.error());
  return -1;
}

int on_zero(void* handle, uint32_t count, uint64_t offset, uint32_t flags) noexcept {
  if ((flags & NBDKIT_FLAG_FAST_ZERO) != 0) {
    const int slow = guarded(-1, [&] { return zero_is_slow(handle, count, offset); });
    // This reply is part of the protocol, not an error to report. If a plain zero request failed
    // with it, nbdkit 1.32 would write the zeros itself, in a way that loses data.
    if (slow == 1) nbdkit_set_error(EOPNOTSUPP);
    if (slow != 0) return -1;
  }
  const bool unmap = (flags & NBDKIT_FLAG_MAY_TRIM) != 0;
  return change_disk(handle, flags,
                     [&](WritePath& path) { return path.zero(GuestOffset(offset), count, unmap); });
}

int on_trim(void* handle, uint32_t count, uint64_t offset, uint32_t flags) noexcept {
  return change_disk(handle, flags,
                     [&](WritePath& path) { return path.trim(GuestOffset(offset), count); });
}

int on_flush(void* handle, uint32_t /*flags*/) noexcept {
  return guarded(-1, [&] {
    Connection& connection = connection_of(handle);
    connection.changed.store(false, std::memory_order_relaxed);
    return answer(connection.served->write_path()->flush());
  });
}

int on_extents(void* handle, uint32_t count, uint64_t offset, uint32_t flags,
               nbdkit_extents* extents) noexcept {
  return guarded(-1, [&] {
    const bool one = (flags & NBDKIT_FLAG_REQ_ONE) != 0;
    const auto list =
        nbdkit::list_extents(connection_of(handle).served->disk(), offset, count, one);
    if (!list) {
      report(list.error());
      return -1;
    }
    for (const auto& it : *list) {
      if (qcow2_debug_extents != 0)
        nbdkit_debug("qcow2: extent %#" PRIx64 "+%#" PRIx64 ": type %u", it.offset, it.length,
                     it.type);
      if (nbdkit_add_extent(extents, it.offset, it.length, it.type) == -1) return -1;
    }
    return 0;
  });
}

}  // namespace

void set_requests(nbdkit_plugin& callbacks) noexcept {
  callbacks.cache = on_cache;
  callbacks.pread = on_pread;
  callbacks.pwrite = on_pwrite;
  callbacks.zero = on_zero;
  callbacks.trim = on_trim;
  callbacks.flush = on_flush;
  callbacks.extents = on_extents;
}

}  // namespace vc::plugin
