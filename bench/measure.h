// Opens one disk, runs a load on it, and closes it.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/cancel.h"
#include "base/result.h"
#include "bench/device.h"
#include "bench/load.h"
#include "bench/tally.h"
#include "storage/page_cache.h"

namespace vc::bench {

struct Measurement {
  std::string name;
  std::string format;  // "qcow2", "raw", "nbd"
  uint64_t size = 0;   // of the disk, bytes
  uint64_t requests = 0;
  uint64_t block = 0;  // bytes per request
  std::chrono::duration<double> elapsed{};
  std::chrono::duration<double> flush{};  // after the last write; not in `elapsed`
  Tally tally;
  // Totals of the files of the image and its chain. nullopt if the system does not report it.
  std::optional<CachedPages> cached_before, cached_after;
  std::optional<double> holes;  // share of requests that read zeros which are not stored

  double bytes_per_second() const {
    return static_cast<double>(requests * block) / elapsed.count();
  }
  double requests_per_second() const { return static_cast<double>(requests) / elapsed.count(); }
};

struct MeasureOptions {
  DeviceName device;
  Load load;
  bool drop_cache = false;  // drop the page cache of the image's files first
  // Called periodically by a separate thread: bytes of the requests so far.
  std::function<void(uint64_t bytes)> progress = {};
};

// `cancel` must outlive the call. A requested cancel is an error.
Result<Measurement> measure(const MeasureOptions& options, const Cancel& cancel);

// Returns the size of the disk, bytes.
Result<uint64_t> disk_size(const DeviceName& name, const Cancel& cancel);

}  // namespace vc::bench
