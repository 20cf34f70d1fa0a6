// nbdkit-qcow2-plugin: the nbdkit callbacks. The callbacks are C: an exception that leaves one
// terminates the server, so each uses guarded(). The work is in served_image.cc and extent_list.cc.

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "base/printable.h"
#include "nbdkit/serving/cache_request.h"
#include "nbdkit/serving/extent_list.h"
#include "plugin/parameters.h"
#include "plugin/served_image.h"
#include "qcow2/build/create_image.h"

using namespace vc;

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

// Set by -D qcow2.read=1 and -D qcow2.extents=1: log the extents of each request. Set by -D
// qcow2.stats=1: print write statistics at the end.
extern "C" {
NBDKIT_DLL_PUBLIC int qcow2_debug_read = 0;
NBDKIT_DLL_PUBLIC int qcow2_debug_extents = 0;
NBDKIT_DLL_PUBLIC int qcow2_debug_stats = 0;
}

namespace {

// nbdkit's own limit on a read or a write.
constexpr uint32_t kMaxRequest = 64 << 20;

plugin::Parameters parameters;
std::unique_ptr<plugin::ServedImage> image;
std::shared_ptr<qcow2::Losses> losses;  // set with salvage=true, else nullptr

// One connection.
struct Connection {
  std::shared_ptr<plugin::ServedDisk> served;
  bool writable = false;
  std::atomic<bool> changed{false};  // since the last flush
};

Connection& connection_of(void* handle) {
  return *static_cast<Connection*>(handle);
}

void report(const Error& error) {
  nbdkit_error("%s", printable(error.message()).c_str());
  // nbdkit treats EOPNOTSUPP as a valid reply, not as an error: see on_zero().
  nbdkit_set_error(error.errnum() == EOPNOTSUPP ? EIO : error.errnum());
}

// Calls `work`. An exception is reported with nbdkit_error, and the result is `failed`.
template <typename Value, typename Work>
Value guarded(Value failed, Work work) noexcept {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    nbdkit_error("out of memory");
    nbdkit_set_error(ENOMEM);
  } catch (const std::exception& exception) {
    nbdkit_error("%s", exception.what());
    nbdkit_set_error(EIO);
  } catch (...) {
    nbdkit_error("an exception of an unknown kind");
    nbdkit_set_error(EIO);
  }
  return failed;
}

// Returns 0, or -1 after nbdkit_error().
int answer(const Result<void>& result) {
  if (result) return 0;
  report(result.error());
  return -1;
}

int on_config(const char* key, const char* value) noexcept {
  return guarded(-1, [&] { return parameters.set(key, value); });
}

int on_config_complete() noexcept {
  return guarded(-1, [] { return parameters.complete(); });
}

// Called last while errors still reach the user. No thread that starts here may stay: nbdkit forks
// afterwards.
int on_get_ready() noexcept {
  return guarded(-1, [] {
    plugin::Config config = parameters.config();
    config.open.format = qcow2::Format::kQcow2;
    config.open.writable = !config.open.force_share && !config.open.losses;
    losses = config.open.losses;
    config.open.force_share_option = "force-share=true";
    if (parameters.create()) {
      const auto made = qcow2::create_image(config.file, parameters.image());
      if (!made) {
        report(made.error());
        return -1;
      }
    }
    auto opened = plugin::ServedImage::open(config);
    if (!opened) {
      report(opened.error());
      return -1;
    }
    image = std::move(*opened);
    return 0;
  });
}

// Reports the ranges that clients read as zeros although they have lost data.
void tell_losses() {
  constexpr size_t kShown = 50;
  const auto all = losses->list(UINT64_MAX);
  for (size_t i = 0; i < std::min(all.size(), kShown); ++i)
    nbdkit_error("lost: guest offset %#" PRIx64 ", %" PRIu64 " bytes: %s", all[i].at.value(),
                 all[i].length, qcow2::describe(all[i].reason));
  if (all.size() > kShown) nbdkit_error("lost: and %zu more ranges", all.size() - kShown);
}

// Called after the last connection has closed: writes the remaining changes and truncates the file.
void on_cleanup() noexcept {
  guarded(-1, [] {
    if (!image) return 0;
    if (answer(image->close()) == -1) return -1;
    if (losses) tell_losses();
    const auto statistics = image->statistics();
    if (qcow2_debug_stats == 0 || !statistics) return 0;
    const std::string line = fmt::format(
        "qcow2: allocated {} clusters, zeroed {}, freed {}; cut {} bytes off the end of the file",
        statistics->allocated, statistics->zeroed, statistics->freed, statistics->truncated);
    // nbdkit_debug needs -v, which also logs each request.
    std::fprintf(stderr, "%s\n", line.c_str());
    return 0;
  });
}

void on_unload() noexcept {
  image.reset();
}

void on_dump_plugin() noexcept {
  for (const char* feature : {"zlib", "zstd", "extended_l2", "data_file", "snapshots", "backing",
                              "extents", "write", "create"})
    std::printf("qcow2_%s=yes\n", feature);
}

int on_list_exports(int /*readonly*/, int /*is_tls*/, nbdkit_exports* exports) noexcept {
  return guarded(-1, [&] {
    for (const auto& it : image->exports())
      if (nbdkit_add_export(exports, it.name.c_str(), it.description.c_str()) == -1) return -1;
    return 0;
  });
}

const char* on_default_export(int /*readonly*/, int /*is_tls*/) noexcept {
  return "";
}

const char* on_export_description(void* handle) noexcept {
  return connection_of(handle).served->description().c_str();
}

void* on_open(int readonly) noexcept {
  return guarded(static_cast<void*>(nullptr), [&]() -> void* {
    const char* const name = nbdkit_export_name();
    if (!name) return nullptr;
    auto disk = image->disk(name);
    if (!disk) {
      report(disk.error());
      return nullptr;
    }
    if (!readonly) {
      std::string why;
      if (answer(image->start_writing(**disk, why)) == -1) return nullptr;
      if (!why.empty()) nbdkit_error("served read-only: %s", printable(why).c_str());
    }
    auto connection = std::make_unique<Connection>();
    connection->writable = !readonly && (*disk)->write_path() != nullptr;
    connection->served = std::move(*disk);
    return connection.release();
  });
}

// Flushes the changes of a client that disconnects without a flush.
void on_close(void* handle) noexcept {
  const std::unique_ptr<Connection> connection(&connection_of(handle));
  guarded(-1, [&] {
    return connection->changed ? answer(connection->served->write_path()->flush()) : 0;
  });
}

int64_t on_get_size(void* handle) noexcept {
  return static_cast<int64_t>(connection_of(handle).served->size());
}

int on_can_write(void* handle) noexcept {
  return connection_of(handle).writable ? 1 : 0;
}

// For capabilities that matter only to writers.
int on_yes(void* /*handle*/) noexcept {
  return 1;
}

int on_can_fua(void* /*handle*/) noexcept {
  return NBDKIT_FUA_NATIVE;
}

// All connections share one image: each reads what another wrote, and a flush on one covers all.
int on_can_multi_conn(void* /*handle*/) noexcept {
  return 1;
}

int on_can_cache(void* /*handle*/) noexcept {
  return NBDKIT_CACHE_NATIVE;
}

int on_block_size(void* /*handle*/, uint32_t* minimum, uint32_t* preferred,
                  uint32_t* maximum) noexcept {
  *minimum = 1;
  *preferred = static_cast<uint32_t>(image->preferred_block_size());
  *maximum = kMaxRequest;
  return 0;
}

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
    const plugin::ServedDisk& served = *connection_of(handle).served;
    if (qcow2_debug_read != 0) log_map(served.disk(), offset, count);
    return answer(served.read(GuestOffset(offset), {static_cast<std::byte*>(buffer), count}));
  });
}

int on_cache(void* handle, uint32_t count, uint64_t offset, uint32_t /*flags*/) noexcept {
  return guarded(-1, [&] {
    const plugin::ServedDisk& served = *connection_of(handle).served;
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
    plugin::WritePath& path = *connection.served->write_path();
    connection.changed.store(true, std::memory_order_relaxed);
    auto result = change(path);
    if (result && (flags & NBDKIT_FLAG_FUA) != 0) result = path.flush();
    return answer(result);
  });
}

int on_pwrite(void* handle, const void* buffer, uint32_t count, uint64_t offset,
              uint32_t flags) noexcept {
  return change_disk(handle, flags, [&](plugin::WritePath& path) {
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
  return change_disk(handle, flags, [&](plugin::WritePath& path) {
    return path.zero(GuestOffset(offset), count, unmap);
  });
}

int on_trim(void* handle, uint32_t count, uint64_t offset, uint32_t flags) noexcept {
  return change_disk(handle, flags, [&](plugin::WritePath& path) {
    return path.trim(GuestOffset(offset), count);
  });
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

nbdkit_plugin create_plugin() {
  nbdkit_plugin it{};
  it.name = "qcow2";
  it.longname = "nbdkit QCOW2 plugin";
  it.version = VIRT_COMPACT_VERSION;
  it.description =
      "Serves the disk in a QCOW2 image, to read and write, and its internal snapshots.";
  it.magic_config_key = "file";
  it.config_help = plugin::Parameters::kHelp;
  it.cleanup = on_cleanup;
  it.unload = on_unload;
  it.config = on_config;
  it.config_complete = on_config_complete;
  it.get_ready = on_get_ready;
  it.dump_plugin = on_dump_plugin;
  it.list_exports = on_list_exports;
  it.default_export = on_default_export;
  it.export_description = on_export_description;
  it.open = on_open;
  it.close = on_close;
  it.get_size = on_get_size;
  it.can_write = on_can_write;
  it.can_flush = on_yes;
  it.can_trim = on_yes;
  it.can_zero = on_yes;
  it.can_fast_zero = on_yes;
  it.can_fua = on_can_fua;
  it.can_multi_conn = on_can_multi_conn;
  it.can_cache = on_can_cache;
  it.cache = on_cache;
  it.block_size = on_block_size;
  it.pread = on_pread;
  it.pwrite = on_pwrite;
  it.zero = on_zero;
  it.trim = on_trim;
  it.flush = on_flush;
  it.extents = on_extents;
  return it;
}

nbdkit_plugin qcow2_plugin = create_plugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(qcow2_plugin)
