// One disk under load: opened, put to it, closed.
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

namespace bench {

struct Measurement {
  std::string name;
  std::string format;  // "qcow2", "raw", "nbd"
  uint64_t size = 0;   // of the disk, bytes
  uint64_t requests = 0;
  uint64_t block = 0;  // bytes of each
  std::chrono::duration<double> elapsed{};
  std::chrono::duration<double> flush{};  // behind the last write; not in `elapsed`
  Tally tally;
  // Of the files of the image and its chain together; nothing: the system does not tell.
  std::optional<CachedPages> cached_before, cached_after;
  std::optional<double> holes;  // share of the requests that read zeros which are not stored

  double bytes_per_second() const {
    return static_cast<double>(requests * block) / elapsed.count();
  }
  double requests_per_second() const { return static_cast<double>(requests) / elapsed.count(); }
};

struct MeasureOptions {
  DeviceName device;
  Load load;
  bool drop_cache = false;  // the system forgets the image's files first
  // Called now and then while it runs, by a thread of its own: bytes of the requests so far.
  std::function<void(uint64_t bytes)> progress = {};
};

// `cancel` outlives the call; when it is requested, that is an error.
qcow2::Result<Measurement> measure(const MeasureOptions& options, const copy::Cancel& cancel);

// The size of the disk, bytes.
qcow2::Result<uint64_t> disk_size(const DeviceName& name, const copy::Cancel& cancel);

}  // namespace bench
