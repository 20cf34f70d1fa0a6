// nbdkit-qcow2-filter: the nbdkit callbacks. next_storage.h reads the layer below; decoded_image.h
// decodes it.

#include <nbdkit-filter.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/printable.h"
#include "filters/decoded_image.h"
#include "filters/granularity.h"
#include "filters/next_storage.h"
#include "nbdkit/serving/cache_request.h"
#include "nbdkit/serving/extent_list.h"
#include "nbdkit/serving/guarded.h"
#include "nbdkit/serving/shared_values.h"
#include "nbdkit/serving/snapshot_exports.h"
#include "qcow2/read/table_cache.h"

using namespace vc;

namespace {

using filters::DecodedImage;
using filters::NextStorage;
using nbdkit::guarded;
using nbdkit::kSnapshotPrefix;

// nbdkit's own limit on a read.
constexpr uint32_t kMaxRequest = 64 << 20;
constexpr int64_t kMinCacheSize = 64 << 10;

std::optional<std::string> main_snapshot;  // shown unless the export name selects a snapshot
uint64_t cache_size = 32 << 20;            // bytes, for all images together

// The layer below (this filter may occur twice), its export, and its size. A different size means a
// different image.
using ImageKey = std::tuple<const nbdkit_backend*, std::string, uint64_t>;
nbdkit::SharedValues<ImageKey, DecodedImage> images;

// The parts of an export name.
struct ExportName {
  std::string below;                    // export of the layer below
  std::optional<std::string> snapshot;  // nullopt: current disk
};

// One connection.
struct Connection {
  const nbdkit_backend* backend = nullptr;
  ExportName name;
  std::shared_ptr<DecodedImage> image;
  std::shared_ptr<DecodedImage::Disk> disk;
};

Connection& connection_of(void* handle) {
  return *static_cast<Connection*>(handle);
}

void report(const Error& error, int* err) {
  nbdkit_error("qcow2 filter: %s", printable(error.message()).c_str());
  // nbdkit treats EOPNOTSUPP as a valid reply, not as an error.
  *err = error.errnum() == EOPNOTSUPP ? EIO : error.errnum();
}

void report(const Error& error) {
  int err = 0;
  report(error, &err);
}

// Parses "snapshot:NAME" and "EXPORT/snapshot:NAME". Any other name belongs to the layer below.
ExportName parse_export(std::string_view name) {
  if (name.starts_with(nbdkit::kSnapshotPrefix))
    return {"", std::string(name.substr(nbdkit::kSnapshotPrefix.size()))};
  std::string separator("/");
  separator += nbdkit::kSnapshotPrefix;
  const size_t at = name.find(separator);
  if (at == std::string_view::npos) return {std::string(name), main_snapshot};
  return {std::string(name.substr(0, at)), std::string(name.substr(at + separator.size()))};
}

// Shared by all images: there may be many connections, each with an image of its own. Tables of
// different images do not mix.
const std::shared_ptr<qcow2::TableCache>& tables() {
  static const auto cache = std::make_shared<qcow2::TableCache>(cache_size);
  return cache;
}

// Returns the image that `next` reads from this export of the layer below. `next` must be prepared.
Result<std::shared_ptr<DecodedImage>> image_of(nbdkit_next* next, const nbdkit_backend* backend,
                                               const std::string& below) {
  const int64_t size = next->get_size(next);
  const auto block = filters::block_size_of(next);
  const int can_share = next->can_multi_conn(next);
  const std::string name =
      below.empty() ? "the image below" : "the image below, '" + printable(below) + "'";
  if (size == -1 || !block || can_share == -1)
    return fail(Error::system(EIO, name + ": the layer below does not report its properties"));

  NextStorage::Shape shape;
  shape.size = static_cast<uint64_t>(size);
  if (block->minimum != 0) shape.minimum = block->minimum;
  shape.maximum = block->maximum;
  const auto open = [&] {
    const NextStorage::Through through(next);
    return DecodedImage::open(std::make_shared<NextStorage>(name, shape), tables());
  };
  // Without multi-conn, each connection may see different data, so tables must not be shared
  // between connections.
  if (can_share == 0) return open();
  return images.get({backend, below, shape.size}, open);
}

int set_cache_size(const char* key, const char* value) {
  const int64_t size = nbdkit_parse_size(value);
  if (size == -1) return -1;
  if (size < kMinCacheSize) {
    nbdkit_error("%s=%s: the value must be at least 64K", key, printable(value).c_str());
    return -1;
  }
  cache_size = static_cast<uint64_t>(size);
  return 0;
}

int on_config(nbdkit_next_config* next, nbdkit_backend* backend, const char* key,
              const char* value) noexcept {
  return nbdkit::guarded(-1, [&] {
    const std::string_view name = key;
    if (name == "qcow2-cache-size") return set_cache_size(key, value);
    if (name != "qcow2-snapshot") return next(backend, key, value);
    if (*value == '\0') {
      nbdkit_error("%s= is empty: give the id or the name of a snapshot", key);
      return -1;
    }
    main_snapshot = value;
    return 0;
  });
}

struct FreeExports {
  void operator()(nbdkit_exports* it) const { nbdkit_exports_free(it); }
};

struct CloseContext {
  void operator()(nbdkit_next* it) const { nbdkit_next_context_close(it); }
};

// Returns the exports of the layer's only export. Returns nothing if it has no readable image; the
// client that opens it gets the error.
std::vector<nbdkit::Export> exports_in(nbdkit_backend* backend) {
  const std::unique_ptr<nbdkit_next, CloseContext> next(
      nbdkit_next_context_open(backend, 1, "", 0));
  if (!next || next->prepare(next.get()) == -1) return {};
  const auto look = [&]() -> Result<std::vector<nbdkit::Export>> {
    const NextStorage::Through through(next.get());
    ASSIGN_OR_RETURN(const auto image, image_of(next.get(), backend, ""));
    ASSIGN_OR_RETURN(const auto disk, image->disk(main_snapshot));
    auto exports = nbdkit::list_snapshot_exports(image->snapshots());
    exports.insert(exports.begin(), {"", disk->description});
    return exports;
  };
  const auto exports = look();
  if (!exports) nbdkit_debug("qcow2 filter: %s", printable(exports.error().message()).c_str());
  next->finalize(next.get());
  return exports.value_or(std::vector<nbdkit::Export>());
}

int on_list_exports(nbdkit_next_list_exports* next, nbdkit_backend* backend, int /*readonly*/,
                    int /*is_tls*/, nbdkit_exports* exports) noexcept {
  return nbdkit::guarded(-1, [&] {
    const std::unique_ptr<nbdkit_exports, FreeExports> below(nbdkit_exports_new());
    if (!below || next(backend, 1, below.get()) == -1) return -1;
    const size_t count = nbdkit_exports_count(below.get());
    // Exports of a layer with named exports are not opened. Opening many could delay a client for
    // long; and nbdkit passes no export name to a plugin that is opened here, which crashes the
    // file plugin of nbdkit 1.32 (tested).
    if (count == 1 && *nbdkit_get_export(below.get(), 0).name == '\0') {
      const auto found = exports_in(backend);
      for (const nbdkit::Export& it : found)
        if (nbdkit_add_export(exports, it.name.c_str(), it.description.c_str()) == -1) return -1;
      if (!found.empty()) return 0;
    }
    for (size_t i = 0; i < count; ++i) {
      const nbdkit_export it = nbdkit_get_export(below.get(), i);
      if (nbdkit_add_export(exports, it.name, it.description) == -1) return -1;
    }
    return 0;
  });
}

void* on_open(nbdkit_next_open* next, nbdkit_context* context, int /*readonly*/,
              const char* export_name, int /*is_tls*/) noexcept {
  return nbdkit::guarded(static_cast<void*>(nullptr), [&]() -> void* {
    auto connection = std::make_unique<Connection>();
    connection->backend = nbdkit_context_get_backend(context);
    connection->name = parse_export(export_name);
    if (next(context, 1, connection->name.below.c_str()) == -1) return nullptr;
    return connection.release();
  });
}

void on_close(void* handle) noexcept {
  delete &connection_of(handle);
}

int on_prepare(nbdkit_next* next, void* handle, int /*readonly*/) noexcept {
  return nbdkit::guarded(-1, [&] {
    Connection& connection = connection_of(handle);
    const NextStorage::Through through(next);
    auto image = image_of(next, connection.backend, connection.name.below);
    if (!image) {
      report(image.error());
      return -1;
    }
    auto disk = (*image)->disk(connection.name.snapshot);
    if (!disk) {
      report(disk.error());
      return -1;
    }
    connection.image = std::move(*image);
    connection.disk = std::move(*disk);
    return 0;
  });
}

int64_t on_get_size(nbdkit_next* /*next*/, void* handle) noexcept {
  return static_cast<int64_t>(connection_of(handle).disk->disk.size());
}

const char* on_export_description(nbdkit_next* /*next*/, void* handle) noexcept {
  return connection_of(handle).disk->description.c_str();
}

int on_block_size(nbdkit_next* /*next*/, void* handle, uint32_t* minimum, uint32_t* preferred,
                  uint32_t* maximum) noexcept {
  *minimum = 1;
  *preferred = static_cast<uint32_t>(connection_of(handle).image->preferred_block_size());
  *maximum = kMaxRequest;
  return 0;
}

// For capabilities that matter only to writers.
int on_no(nbdkit_next* /*next*/, void* /*handle*/) noexcept {
  return 0;
}

int on_can_extents(nbdkit_next* /*next*/, void* /*handle*/) noexcept {
  return 1;
}

int on_can_cache(nbdkit_next* /*next*/, void* /*handle*/) noexcept {
  return NBDKIT_CACHE_NATIVE;
}

int on_pread(nbdkit_next* next, void* handle, void* buffer, uint32_t count, uint64_t offset,
             uint32_t /*flags*/, int* err) noexcept {
  return nbdkit::guarded(-1, err, [&] {
    const NextStorage::Through through(next);
    const auto done = connection_of(handle).disk->disk.read(
        GuestOffset(offset), {static_cast<std::byte*>(buffer), count});
    if (done) return 0;
    report(done.error(), err);
    return -1;
  });
}

int on_cache(nbdkit_next* next, void* handle, uint32_t count, uint64_t offset, uint32_t /*flags*/,
             int* err) noexcept {
  return nbdkit::guarded(-1, err, [&] {
    const NextStorage::Through through(next);
    const qcow2::Disk& disk = connection_of(handle).disk->disk;
    const auto done = nbdkit::cache_range(
        GuestOffset(offset), count,
        [&](GuestOffset at, std::span<std::byte> to) { return disk.read(at, to); });
    if (done) return 0;
    report(done.error(), err);
    return -1;
  });
}

int on_extents(nbdkit_next* next, void* handle, uint32_t count, uint64_t offset, uint32_t flags,
               nbdkit_extents* extents, int* err) noexcept {
  return nbdkit::guarded(-1, err, [&] {
    const NextStorage::Through through(next);
    const bool one = (flags & NBDKIT_FLAG_REQ_ONE) != 0;
    const auto list = nbdkit::list_extents(connection_of(handle).disk->disk, offset, count, one);
    if (!list) {
      report(list.error(), err);
      return -1;
    }
    for (const auto& it : *list) {
      if (nbdkit_add_extent(extents, it.offset, it.length, it.type) == -1) {
        *err = errno;
        return -1;
      }
    }
    return 0;
  });
}

// nbdkit does not call these functions, since the disk is read-only. If they were missing, nbdkit
// would pass the requests on, and they would corrupt the image.
int refuse(int* err) {
  nbdkit_error("qcow2 filter: the disk is read-only");
  *err = EROFS;
  return -1;
}

int on_pwrite(nbdkit_next* /*next*/, void* /*handle*/, const void* /*buffer*/, uint32_t /*count*/,
              uint64_t /*offset*/, uint32_t /*flags*/, int* err) noexcept {
  return refuse(err);
}

int on_change(nbdkit_next* /*next*/, void* /*handle*/, uint32_t /*count*/, uint64_t /*offset*/,
              uint32_t /*flags*/, int* err) noexcept {
  return refuse(err);
}

int on_flush(nbdkit_next* /*next*/, void* /*handle*/, uint32_t /*flags*/, int* err) noexcept {
  return refuse(err);
}

nbdkit_filter create_filter() {
  nbdkit_filter it{};
  it.name = "qcow2";
  it.longname = "nbdkit QCOW2 filter";
  it.description = "Serves the disk in a QCOW2 image that any plugin serves, read-only.";
  it.config_help =
      "qcow2-snapshot=<ID|NAME>   Show this internal snapshot as the disk.\n"
      "qcow2-cache-size=<SIZE>    Memory for L2 tables (default: 32M).";
  it.config = on_config;
  it.list_exports = on_list_exports;
  it.open = on_open;
  it.close = on_close;
  it.prepare = on_prepare;
  it.get_size = on_get_size;
  it.export_description = on_export_description;
  it.block_size = on_block_size;
  it.can_write = on_no;
  it.can_flush = on_no;
  it.can_trim = on_no;
  it.can_zero = on_no;  // NBDKIT_ZERO_NONE
  it.can_fast_zero = on_no;
  it.can_fua = on_no;  // NBDKIT_FUA_NONE
  it.can_extents = on_can_extents;
  it.can_cache = on_can_cache;
  it.cache = on_cache;
  it.pread = on_pread;
  it.pwrite = on_pwrite;
  it.flush = on_flush;
  it.trim = on_change;
  it.zero = on_change;
  it.extents = on_extents;
  return it;
}

nbdkit_filter qcow2_filter = create_filter();

}  // namespace

NBDKIT_REGISTER_FILTER(qcow2_filter)
