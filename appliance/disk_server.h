// A guest's disk, served for an appliance.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "appliance/data_map.h"
#include "appliance/guest_disk.h"
#include "appliance/partition_table.h"
#include "base/cancel.h"
#include "base/result.h"
#include "base/stop.h"
#include "nbd/block_status.h"
#include "nbd/endpoint.h"
#include "nbd/limits.h"
#include "nbd/session.h"

namespace vc::appliance {

// nbdkit with our plugin for a QCOW2 image, with nbdkit's file plugin for a raw one; and for a
// server of the user's a proxy, which takes any number of connections and is at a Unix socket,
// wherever that server is, and whatever TLS it wants.
//
// Used by the thread that started it.
class DiskServer {
 public:
  enum class Access {
    kTrim,     // trims are gathered, and zeros that are written become holes
    kWrite,    // what is written is written
    kScratch,  // what is written is kept in a temporary file without a name, and forgotten
  };

  // `disk` and `cancel` outlive it.  That the disk cannot be written or trimmed is an error, unless
  // that is of no matter for the access.
  static Result<std::unique_ptr<DiskServer>> start(const GuestDisk& disk, Access access,
                                                   const Cancel& cancel);

  DiskServer(const DiskServer&) = delete;
  DiskServer& operator=(const DiskServer&) = delete;

  // For Appliance::Drive.
  std::string socket() const { return endpoint_->server()->socket_path(); }
  uint64_t size() const { return limits_.size; }
  // What is given back at once, bytes.
  uint64_t granularity() const { return granularity_; }

  // What the server calls data, or does not call anything; nothing if it calls nothing ever.
  Result<std::optional<DataMap>> data();

  // Reads the bytes from `at` on, all of them within the disk.
  Result<void> read(uint64_t at, std::span<std::byte> to);
  Result<PartitionTable> partition_table();

  // What was written is on disk.
  Result<void> flush();

  // Ends the server, which has a QCOW2 image to put in order.  After this nothing may be called.
  Result<void> close();

 private:
  DiskServer(const GuestDisk& disk, const Cancel& cancel) : disk_(disk), stop_(cancel) {}
  Result<void> ask_remote(const nbd::NbdTuning& tuning, Access access);

  const GuestDisk& disk_;
  // A server that writes is not hurried when the user wants to stop.
  const Cancel never_;
  Stop patient_{never_};
  Stop stop_;
  std::shared_ptr<nbd::NbdEndpoint> remote_;  // the command of the user's, if it is one
  std::shared_ptr<nbd::NbdEndpoint> endpoint_;
  std::unique_ptr<nbd::NbdLine> line_;
  std::optional<PartitionTable> table_;  // of a server of the user's
  std::unique_ptr<nbd::NbdStatus> status_;
  nbd::NbdLimits limits_;
  uint64_t granularity_ = 0;
};

}  // namespace vc::appliance
