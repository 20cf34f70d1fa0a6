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
#include "nbd/tuning.h"
#include "qcow2/read/chain.h"

namespace bench {

// What a user calls a disk, and how it is to be opened.
struct DeviceName {
  std::string name;                       // a path or an NBD URI; unless there is a command
  std::vector<std::string> command;       // "[ COMMAND ARGS… ]": a server to start
  std::optional<qcow2::Format> format;    // of a file; without it the content decides
  bool force_share = false;               // a file that somebody writes to may be read
  bool direct = false;                    // a file's pages are not cached
  qcow2::Trust trust = {};                // of a file
  copy::NbdTuning nbd{.connections = 1};  // for a server
};

// Used by the thread that opened it.
class Device {
 public:
  virtual ~Device() = default;

  // For messages.
  virtual const std::string& name() const = 0;
  virtual uint64_t size() const = 0;  // bytes
  // "qcow2", "raw" or "nbd".
  virtual const char* format() const = 0;
  // Files whose pages may be in the cache of this machine; none for a server.
  virtual std::vector<std::string> files() const { return {}; }

  // Whether it can be put to this load; the error says why not.
  virtual qcow2::Result<void> check(const Load& /*load*/) const { return {}; }

  // What share (0 … 1) of the requests of a load, of a sample of them, reads as zeros that are not
  // stored; nothing: cannot tell.
  virtual qcow2::Result<std::optional<double>> hole_share(const Load& /*load*/) const {
    return std::optional<double>{};
  }

  // Sends what the schedule gives, and adds what was done to `tally`.  The first error goes to the
  // device's stop.
  virtual void run(Schedule& schedule, const Load& load, Tally& tally) = 0;

  // What was written is on the disk when it returns.
  virtual qcow2::Result<void> flush() = 0;
  // An image that was written is put in order.  After this nothing may be called.
  virtual qcow2::Result<void> close() { return {}; }
};

}  // namespace bench
