// A disk under load.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/stop.h"
#include "bench/load.h"
#include "bench/schedule.h"
#include "bench/tally.h"
#include "copy/source/disk_name.h"
#include "nbd/tuning.h"
#include "qcow2/read/chain.h"

namespace vc::bench {

// The name of a disk, and how to open it.
struct DeviceName : copy::DiskName {
  bool force_share = false;              // read a file although another process writes to it
  bool direct = false;                   // bypass the page cache for a file
  qcow2::Trust trust = {};               // files only
  nbd::NbdTuning nbd{.connections = 1};  // servers only
};

// Must be used by the thread that opened it.
class Device {
 public:
  virtual ~Device() = default;

  // Name for messages.
  virtual const std::string& name() const = 0;
  virtual uint64_t size() const = 0;  // bytes
  // "qcow2", "raw" or "nbd".
  virtual const char* format() const = 0;
  // Files whose pages this machine may cache; empty for a server.
  virtual std::vector<std::string> files() const { return {}; }

  // Returns an error if the device does not support the load.
  virtual Result<void> check(const Load& /*load*/) const { return {}; }

  // Returns the share (0 … 1) of sampled requests of a load that read zeros which are not stored.
  // nullopt if unknown.
  virtual Result<std::optional<double>> hole_share(const Load& /*load*/) const {
    return std::optional<double>{};
  }

  // Sends the requests of the schedule and adds the results to `tally`. The first error goes to the
  // device's stop.
  virtual void run(Schedule& schedule, const Load& load, Tally& tally) = 0;

  // Flushes written data to stable storage.
  virtual Result<void> flush() = 0;
  // Closes a written image cleanly. No other call may follow.
  virtual Result<void> close() { return {}; }
};

}  // namespace vc::bench
