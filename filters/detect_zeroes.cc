// nbdkit-detect-zeroes-filter: the nbdkit callbacks. zero_runs.h finds the zeros.

#include <nbdkit-filter.h>

#include <atomic>
#include <cinttypes>
#include <span>
#include <string_view>

#include "filters/granularity.h"
#include "nbdkit/core/zero_runs.h"
#include "nbdkit/serving/guarded.h"

using namespace vc;

// Set by -D detect-zeroes.stats=1. nbdkit looks up a symbol with the filter's name, which is not a
// C++ identifier, so the linker defines it.
extern "C" {
NBDKIT_DLL_PUBLIC int detect_zeroes_debug_stats = 0;
}

namespace {

using nbdkit::guarded;
using nbdkit::ZeroRuns;

// Limits of the default granularity, which is the layer's preferred size.
constexpr uint64_t kDefaultGranularity = 4096;
constexpr uint64_t kMaxDefaultGranularity = 2 << 20;

enum class Mode { kOff, kOn, kUnmap };

Mode mode = Mode::kUnmap;
uint64_t granularity = 0;  // bytes; 0: from the layer below

struct {
  std::atomic<uint64_t> writes = 0;
  std::atomic<uint64_t> bytes = 0;  // bytes of `writes`
  std::atomic<uint64_t> zeros = 0;  // zero requests made from them
  std::atomic<uint64_t> zero_bytes = 0;
  std::atomic<uint64_t> data = 0;  // writes made from them
} statistics;

// One connection.
struct Connection {
  bool detects = false;
  bool native_fua = false;
  uint64_t granularity = 0;  // bytes
};

Connection& connection_of(void* handle) {
  return *static_cast<Connection*>(handle);
}

int set_mode(std::string_view value) {
  if (value == "off") {
    mode = Mode::kOff;
  } else if (value == "on") {
    mode = Mode::kOn;
  } else if (value == "unmap") {
    mode = Mode::kUnmap;
  } else {
    nbdkit_error("detect-zeroes: the value must be off, on or unmap");
    return -1;
  }
  return 0;
}

int on_config(nbdkit_next_config* next, nbdkit_backend* backend, const char* key,
              const char* value) noexcept {
  return nbdkit::guarded(-1, [&] {
    const std::string_view name = key;
    if (name == "detect-zeroes") return set_mode(value);
    if (name == "detect-zeroes-granularity") {
      const auto parsed = filters::parse_granularity(key, value);
      if (!parsed) return -1;
      granularity = *parsed;
      return 0;
    }
    return next(backend, key, value);
  });
}

void* on_open(nbdkit_next_open* next, nbdkit_context* context, int readonly,
              const char* export_name, int /*is_tls*/) noexcept {
  return nbdkit::guarded(static_cast<void*>(nullptr), [&]() -> void* {
    if (next(context, readonly, export_name) == -1) return nullptr;
    return new Connection;
  });
}

void on_close(void* handle) noexcept {
  delete &connection_of(handle);
}

int on_prepare(nbdkit_next* next, void* handle, int readonly) noexcept {
  Connection& connection = connection_of(handle);
  if (readonly != 0 || mode == Mode::kOff) return 0;
  const int can_write = next->can_write(next);
  if (can_write == -1) return -1;
  if (can_write == 0) return 0;
  const int can_zero = next->can_zero(next);
  const int can_fua = next->can_fua(next);
  const auto block = filters::block_size_of(next);
  if (can_zero == -1 || can_fua == -1 || !block) return -1;
  // Detection gains nothing if zeros are written as data.
  connection.detects = can_zero == NBDKIT_ZERO_NATIVE;
  connection.native_fua = can_fua == NBDKIT_FUA_NATIVE;
  connection.granularity = granularity;
  if (granularity == 0)
    connection.granularity =
        std::clamp<uint64_t>(block->preferred, kDefaultGranularity, kMaxDefaultGranularity);
  // Requests are split at granules, and must not become smaller than the layer's minimum.
  connection.granularity = std::max<uint64_t>(connection.granularity, block->minimum);
  nbdkit_debug("detect-zeroes: %s, granularity %" PRIu64,
               connection.detects ? "looking for zeros" : "the layer below writes zeros as data",
               connection.granularity);
  return 0;
}

int on_pwrite(nbdkit_next* next, void* handle, const void* buffer, uint32_t count, uint64_t offset,
              uint32_t flags, int* err) noexcept {
  const Connection& connection = connection_of(handle);
  if (!connection.detects) return next->pwrite(next, buffer, count, offset, flags, err);
  ++statistics.writes;
  statistics.bytes += count;

  const auto* const bytes = static_cast<const std::byte*>(buffer);
  nbdkit::ZeroRuns runs({bytes, count}, offset, connection.granularity);
  auto run = runs.next();
  // Native FUA is sent with each piece. Emulated FUA is a flush, which is needed once, after the
  // last piece.
  const bool flush =
      run && run->length < count && (flags & NBDKIT_FLAG_FUA) != 0 && !connection.native_fua;
  if (flush) flags &= ~static_cast<uint32_t>(NBDKIT_FLAG_FUA);
  for (; run; run = runs.next()) {
    const auto length = static_cast<uint32_t>(run->length);
    if (run->zero) {
      ++statistics.zeros;
      statistics.zero_bytes += length;
      const uint32_t trim = mode == Mode::kUnmap ? NBDKIT_FLAG_MAY_TRIM : 0;
      if (next->zero(next, length, run->offset, flags | trim, err) == -1) return -1;
    } else {
      ++statistics.data;
      const std::byte* const from = bytes + (run->offset - offset);
      if (next->pwrite(next, from, length, run->offset, flags, err) == -1) return -1;
    }
  }
  return flush ? next->flush(next, 0, err) : 0;
}

void on_unload() noexcept {
  if (detect_zeroes_debug_stats == 0) return;
  nbdkit_debug("detect-zeroes: %" PRIu64 " writes of %" PRIu64 " bytes became %" PRIu64
               " writes and %" PRIu64 " zero requests of %" PRIu64 " bytes",
               statistics.writes.load(), statistics.bytes.load(), statistics.data.load(),
               statistics.zeros.load(), statistics.zero_bytes.load());
}

nbdkit_filter create_filter() {
  nbdkit_filter it{};
  it.name = "detect-zeroes";
  it.longname = "nbdkit detect-zeroes filter";
  it.description = "Finds zeros in writes, and sends zero requests instead.";
  it.config_help =
      "detect-zeroes=off|on|unmap        What to do with zeros in writes (default: unmap).\n"
      "detect-zeroes-granularity=<SIZE>  Find them in blocks of this size (default: as the\n"
      "                                  plugin prefers, or 4K).";
  it.unload = on_unload;
  it.config = on_config;
  it.open = on_open;
  it.close = on_close;
  it.prepare = on_prepare;
  it.pwrite = on_pwrite;
  return it;
}

nbdkit_filter detect_zeroes_filter = create_filter();

}  // namespace

NBDKIT_REGISTER_FILTER(detect_zeroes_filter)
