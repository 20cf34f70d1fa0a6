// nbdkit-coalesce-discard-filter: the nbdkit callbacks. discard_gatherer.h decides what to hold and
// to send; gathered_disks.h maps exports to gatherers.

#include <nbdkit-filter.h>

#include <cinttypes>
#include <memory>
#include <string>
#include <string_view>

#include "filters/granularity.h"
#include "nbdkit/core/gathered_disks.h"
#include "nbdkit/serving/guarded.h"

using namespace vc;

// Set by -D coalesce-discard.stats=1. nbdkit looks up a symbol with the filter's name, which is not
// a C++ identifier, so the linker defines it.
extern "C" {
NBDKIT_DLL_PUBLIC int coalesce_discard_debug_stats = 0;
}

namespace {

using nbdkit::DiscardGatherer;
using nbdkit::GatheredDisks;
using nbdkit::guarded;
using Batch = nbdkit::DiscardGatherer::Batch;
using Kind = nbdkit::DiscardGatherer::Piece::Kind;

// Default if the layer below reports no preferred size: QCOW2's default cluster size.
constexpr uint64_t kDefaultGranularity = 64 << 10;
// Smallest unit that filesystems can deallocate.
constexpr uint64_t kSmallestFragment = 4096;
// A larger limit would need more than about 150 MiB per disk.
constexpr uint32_t kMaxLimit = 1 << 20;

uint64_t granularity = 0;  // bytes; 0: from the layer below
size_t limit = nbdkit::DiscardGatherer::kDefaultLimit;
bool zero_fragments = false;

nbdkit::GatheredDisks disks;

// One connection.
struct Connection {
  std::string export_name;
  std::shared_ptr<nbdkit::GatheredDisks::Disk> disk;  // nullptr if the client cannot trim
  bool can_zero = false;
  bool native_fua = false;
};

Connection& connection_of(void* handle) {
  return *static_cast<Connection*>(handle);
}

int on_config(nbdkit_next_config* next, nbdkit_backend* backend, const char* key,
              const char* value) noexcept {
  return nbdkit::guarded(-1, [&] {
    const std::string_view name = key;
    if (name == "coalesce-discard-granularity") {
      const auto parsed = filters::parse_granularity(key, value);
      if (!parsed) return -1;
      granularity = *parsed;
      return 0;
    }
    if (name == "coalesce-discard-limit") {
      uint32_t count = 0;
      if (nbdkit_parse_uint32_t(key, value, &count) == -1) return -1;
      if (count > kMaxLimit) {
        nbdkit_error("%s=%s: %" PRIu32 " at most", key, value, kMaxLimit);
        return -1;
      }
      limit = count;
      return 0;
    }
    if (name == "zero-fragments") {
      const int parsed = nbdkit_parse_bool(value);
      if (parsed == -1) return -1;
      zero_fragments = parsed == 1;
      return 0;
    }
    return next(backend, key, value);
  });
}

void* on_open(nbdkit_next_open* next, nbdkit_context* context, int readonly,
              const char* export_name, int /*is_tls*/) noexcept {
  return nbdkit::guarded(static_cast<void*>(nullptr), [&]() -> void* {
    if (next(context, readonly, export_name) == -1) return nullptr;
    auto connection = std::make_unique<Connection>();
    connection->export_name = export_name;
    return connection.release();
  });
}

int on_prepare(nbdkit_next* next, void* handle, int readonly) noexcept {
  return nbdkit::guarded(-1, [&] {
    if (readonly != 0) return 0;
    const int64_t size = next->get_size(next);
    const int can_write = next->can_write(next);
    if (size == -1 || can_write == -1) return -1;
    if (can_write == 0) return 0;
    const int can_trim = next->can_trim(next);
    const int can_zero = next->can_zero(next);
    const int can_fua = next->can_fua(next);
    const auto block = filters::block_size_of(next);
    if (can_trim == -1 || can_zero == -1 || can_fua == -1 || !block) return -1;
    if (can_trim == 0) return 0;

    Connection& connection = connection_of(handle);
    connection.can_zero = can_zero != NBDKIT_ZERO_NONE;
    connection.native_fua = can_fua == NBDKIT_FUA_NATIVE;
    nbdkit::DiscardGatherer::Options options;
    options.size = static_cast<uint64_t>(size);
    options.granularity = granularity;
    if (granularity == 0)
      options.granularity = block->preferred != 0 ? block->preferred : kDefaultGranularity;
    // No request may be smaller than the layer's minimum.
    options.granularity = std::max<uint64_t>(options.granularity, block->minimum);
    options.smallest = std::max<uint64_t>(kSmallestFragment, block->minimum);
    options.limit = limit;
    options.zero_fragments = zero_fragments && connection.can_zero;
    connection.disk = disks.acquire(connection.export_name, options);
    nbdkit_debug("coalesce-discard: granularity %" PRIu64, options.granularity);
    return 0;
  });
}

// Sends a piece; returns true on success. FUA in `flags` is for requests that the client waits for.
bool send(nbdkit_next* next, const Connection& connection,
          const nbdkit::DiscardGatherer::Piece& piece, uint32_t flags, int* err) {
  const auto length = static_cast<uint32_t>(piece.length);
  int ignored = 0;
  switch (piece.kind) {
    case Kind::kGranules:
      return next->trim(next, length, piece.offset, flags, err) == 0;
    case Kind::kTrimFragment:
      if (next->trim(next, length, piece.offset, 0, &ignored) == 0) return true;
      break;
    case Kind::kZeroFragment:
      if (!connection.can_zero ||
          next->zero(next, length, piece.offset, NBDKIT_FLAG_MAY_TRIM, &ignored) == 0)
        return true;
      break;
  }
  nbdkit_debug("coalesce-discard: the fragment %#" PRIx64 "+%#" PRIx64
               " was not discarded: error %d",
               piece.offset, piece.length, ignored);
  return true;
}

void send_fragments(nbdkit_next* next, const Connection& connection) {
  Batch batch = connection.disk->gatherer.flush();
  int ignored = 0;
  while (const auto piece = batch.next()) send(next, connection, *piece, 0, &ignored);
}

int on_trim(nbdkit_next* next, void* handle, uint32_t count, uint64_t offset, uint32_t flags,
            int* err) noexcept {
  return nbdkit::guarded(-1, err, [&] {
    const Connection& connection = connection_of(handle);
    const bool flush = (flags & NBDKIT_FLAG_FUA) != 0 && !connection.native_fua;
    if (flush) flags &= ~static_cast<uint32_t>(NBDKIT_FLAG_FUA);
    bool sent = false;
    {
      Batch batch = connection.disk->gatherer.trim(offset, count);
      while (const auto piece = batch.next()) {
        if (!send(next, connection, *piece, flags, err)) return -1;
        sent = true;
      }
    }
    // Held ranges need no flush: they have not been sent.
    return flush && sent ? next->flush(next, 0, err) : 0;
  });
}

int on_pwrite(nbdkit_next* next, void* /*handle*/, const void* buffer, uint32_t count,
              uint64_t offset, uint32_t flags, int* err) noexcept {
  return nbdkit::guarded(-1, err, [&] {
    return disks.write(offset, count,
                       [&] { return next->pwrite(next, buffer, count, offset, flags, err); });
  });
}

int on_zero(nbdkit_next* next, void* /*handle*/, uint32_t count, uint64_t offset, uint32_t flags,
            int* err) noexcept {
  return nbdkit::guarded(-1, err, [&] {
    return disks.write(offset, count, [&] { return next->zero(next, count, offset, flags, err); });
  });
}

int on_flush(nbdkit_next* next, void* handle, uint32_t flags, int* err) noexcept {
  return nbdkit::guarded(-1, err, [&] {
    const Connection& connection = connection_of(handle);
    if (connection.disk) send_fragments(next, connection);
    return next->flush(next, flags, err);
  });
}

// Called last, while requests are still possible.
int on_finalize(nbdkit_next* next, void* handle) noexcept {
  return nbdkit::guarded(0, [&] {
    const Connection& connection = connection_of(handle);
    if (connection.disk) send_fragments(next, connection);
    return 0;
  });
}

void on_close(void* handle) noexcept {
  nbdkit::guarded(0, [&] {
    const std::unique_ptr<Connection> connection(&connection_of(handle));
    if (connection->disk) disks.release(connection->disk);
    return 0;
  });
}

void on_unload() noexcept {
  if (coalesce_discard_debug_stats == 0) return;
  nbdkit::guarded(0, [] {
    const auto it = disks.statistics();
    nbdkit_debug("coalesce-discard: %" PRIu64 " trims of %" PRIu64 " bytes became %" PRIu64
                 " of whole granules, of %" PRIu64 " bytes, %" PRIu64 " of them joined; %" PRIu64
                 " fragments sent, of %" PRIu64 " bytes; overwritten %" PRIu64
                 ", dropped at the limit %" PRIu64 ", held %" PRIu64 " in %" PRIu64 " ranges",
                 it.trims, it.trimmed_bytes, it.sent, it.sent_bytes, it.joined_bytes, it.fragments,
                 it.fragment_bytes, it.overwritten_bytes, it.dropped_bytes, it.held_bytes, it.held);
    return 0;
  });
}

nbdkit_filter create_filter() {
  nbdkit_filter it{};
  it.name = "coalesce-discard";
  it.longname = "nbdkit coalesce-discard filter";
  it.description = "Joins small trims until they fill whole blocks of the layer below.";
  it.config_help =
      "coalesce-discard-granularity=<SIZE>  Size of the blocks (default: as the plugin\n           "
      "                          prefers, or 64K).\ncoalesce-discard-limit=<COUNT>       Remember "
      "this many ranges (default: 16384).\nzero-fragments=<BOOL>                Write zeros to "
      "trims that fill no block\n                                     (default: false).";
  it.unload = on_unload;
  it.config = on_config;
  it.open = on_open;
  it.close = on_close;
  it.prepare = on_prepare;
  it.finalize = on_finalize;
  it.pwrite = on_pwrite;
  it.flush = on_flush;
  it.trim = on_trim;
  it.zero = on_zero;
  return it;
}

nbdkit_filter coalesce_discard_filter = create_filter();

}  // namespace

NBDKIT_REGISTER_FILTER(coalesce_discard_filter)
