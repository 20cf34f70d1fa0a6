// nbdkit-qcow2-plugin: the face that nbdkit sees.
//
// The callbacks are C: no exception may leave them (one that does ends the server), so each goes
// through guarded ().  What they do is in served_image.cc and extent_list.cc.

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <fmt/format.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>

#include "plugin/extent_list.h"
#include "plugin/printable.h"
#include "plugin/served_image.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

// Set by -D qcow2.read=1 and -D qcow2.extents=1: log what each request finds.
extern "C" {
NBDKIT_DLL_PUBLIC int qcow2_debug_read = 0;
NBDKIT_DLL_PUBLIC int qcow2_debug_extents = 0;
}

namespace {

using qcow2::Error;
using qcow2::GuestOffset;

constexpr uint64_t kMinCacheSize = 64 << 10;
// nbdkit's own limit on a read.
constexpr uint32_t kMaxRequest = 64 << 20;

plugin::Config config;
std::unique_ptr<plugin::ServedImage> image;

// One connection.
struct Connection {
  std::shared_ptr<const plugin::ServedDisk> served;
};

Connection& connection_of(void* handle) {
  return *static_cast<Connection*>(handle);
}

void report(const Error& error) {
  nbdkit_error("%s", plugin::printable(error.message()).c_str());
  nbdkit_set_error(error.errnum());
}

// Calls `work`; what it throws becomes an error of nbdkit's and `failed` the result.
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

int set_file(const char* value) {
  if (!config.file.empty()) {
    nbdkit_error("file= is given twice: one image is served");
    return -1;
  }
  // Not realpath: a relative backing file name is relative to the name that the user gave.
  char* const path = nbdkit_absolute_path(value);
  if (!path) return -1;
  config.file = path;
  std::free(path);
  return 0;
}

int set_backing(std::string_view value) {
  using Backing = qcow2::OpenOptions::Backing;
  if (value == "follow") {
    config.open.backing = Backing::kFollow;
  } else if (value == "deny") {
    config.open.backing = Backing::kDeny;
  } else {
    nbdkit_error("backing=%s: it is follow or deny", plugin::printable(value).c_str());
    return -1;
  }
  return 0;
}

int set_cache_size(const char* value) {
  const int64_t size = nbdkit_parse_size(value);
  if (size < 0) return -1;
  if (static_cast<uint64_t>(size) < kMinCacheSize) {
    nbdkit_error("cache-size=%s: 64K at least", plugin::printable(value).c_str());
    return -1;
  }
  config.open.cache_size = static_cast<uint64_t>(size);
  return 0;
}

int on_config(const char* key, const char* value) noexcept {
  return guarded(-1, [&] {
    const std::string_view name = key;
    if (name == "file") return set_file(value);
    if (name == "backing") return set_backing(value);
    if (name == "cache-size") return set_cache_size(value);
    if (name == "snapshot") {
      if (*value == '\0') {
        nbdkit_error("snapshot= is empty: give the id or the name of a snapshot");
        return -1;
      }
      config.snapshot = value;
      return 0;
    }
    nbdkit_error("unknown parameter '%s'", plugin::printable(name).c_str());
    return -1;
  });
}

int on_config_complete() noexcept {
  if (!config.file.empty()) return 0;
  nbdkit_error("no image: give its path, as in: nbdkit qcow2 disk.qcow2");
  return -1;
}

// The last moment at which the user still sees our errors.  No threads are made here: nbdkit forks
// after it.
int on_get_ready() noexcept {
  return guarded(-1, [] {
    config.open.format = qcow2::Format::kQcow2;
    auto opened = plugin::ServedImage::open(config);
    if (!opened) {
      report(opened.error());
      return -1;
    }
    image = std::move(*opened);
    return 0;
  });
}

void on_unload() noexcept {
  image.reset();
}

void on_dump_plugin() noexcept {
  for (const char* feature :
       {"zlib", "zstd", "extended_l2", "data_file", "snapshots", "backing", "extents"})
    std::printf("qcow2_%s=yes\n", feature);
  std::printf("qcow2_write=no\n");
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
  return connection_of(handle).served->description.c_str();
}

void* on_open(int /*readonly*/) noexcept {
  return guarded(static_cast<void*>(nullptr), []() -> void* {
    const char* const name = nbdkit_export_name();
    if (!name) return nullptr;
    auto disk = image->disk(name);
    if (!disk) {
      report(disk.error());
      return nullptr;
    }
    return new Connection{std::move(*disk)};
  });
}

void on_close(void* handle) noexcept {
  delete &connection_of(handle);
}

int64_t on_get_size(void* handle) noexcept {
  return static_cast<int64_t>(connection_of(handle).served->disk.size());
}

// No writing yet.  nbdkit tells clients so, and refuses their writes.
int on_can_write(void* /*handle*/) noexcept {
  return 0;
}

// All connections read one image that nobody changes.
int on_can_multi_conn(void* /*handle*/) noexcept {
  return 1;
}

// nbdkit reads, and drops what it read: that fills the page cache and the L2 cache, and when it is
// done a client's next read is fast.  Telling the kernel alone what will be needed would leave the
// L2 tables unread.
int on_can_cache(void* /*handle*/) noexcept {
  return NBDKIT_CACHE_EMULATE;
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
    const qcow2::Disk& disk = connection_of(handle).served->disk;
    if (qcow2_debug_read != 0) log_map(disk, offset, count);
    const auto read = disk.read(GuestOffset(offset), {static_cast<std::byte*>(buffer), count});
    if (read) return 0;
    report(read.error());
    return -1;
  });
}

int on_extents(void* handle, uint32_t count, uint64_t offset, uint32_t flags,
               nbdkit_extents* extents) noexcept {
  return guarded(-1, [&] {
    const bool one = (flags & NBDKIT_FLAG_REQ_ONE) != 0;
    const auto list = plugin::list_extents(connection_of(handle).served->disk, offset, count, one);
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
  it.description = "Serves the disk in a QCOW2 image, and its internal snapshots.";
  it.magic_config_key = "file";
  it.config_help =
      "[file=]<DISK>              (required) The QCOW2 image.\n"
      "snapshot=<ID|NAME>         Show this internal snapshot as the disk.\n"
      "backing=follow|deny        Whether backing files are opened (default: follow).\n"
      "cache-size=<SIZE>          Memory for L2 tables (default: 32M).";
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
  it.can_multi_conn = on_can_multi_conn;
  it.can_cache = on_can_cache;
  it.block_size = on_block_size;
  it.pread = on_pread;
  it.extents = on_extents;
  return it;
}

nbdkit_plugin qcow2_plugin = create_plugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(qcow2_plugin)
