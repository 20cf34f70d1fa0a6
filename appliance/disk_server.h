// Serves a disk of a guest for an appliance.
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
#include "appliance/passphrase_file.h"
#include "base/cancel.h"
#include "base/result.h"
#include "base/stop.h"
#include "nbd/block_status.h"
#include "nbd/endpoint.h"
#include "nbd/limits.h"
#include "nbd/proxy_note.h"
#include "nbd/session.h"

namespace vc::appliance {

// Runs nbdkit: with our plugin for a QCOW2 image, with nbdkit's file plugin for a raw file, and
// with our plugin checked-nbd as a proxy for a server of the user. The proxy accepts any number of
// connections on a Unix socket, even if the user's server needs TLS or is on another machine. It
// checks the server's answers, and gives the server up if they do not come in time.
//
// Must be used by the thread that started it.
class DiskServer {
 public:
  enum class Access {
    kTrim,     // gathers trims; written zeros become holes
    kWrite,    // stores writes unchanged
    kScratch,  // stores writes in a temporary file without a name
  };

  // Starts the server. `disk` and `cancel` must outlive it. Returns an error if the disk does not
  // permit the writes or trims that `access` needs.
  static Result<std::unique_ptr<DiskServer>> start(const GuestDisk& disk, Access access,
                                                   const Cancel& cancel);

  DiskServer(const DiskServer&) = delete;
  DiskServer& operator=(const DiskServer&) = delete;

  // Returns the path for Appliance::Drive.
  std::string socket() const { return endpoint_->server()->socket_path(); }
  // Returns the note of the proxy; nullptr for a file.
  const nbd::ProxyNote* note() const { return note_ ? &*note_ : nullptr; }
  uint64_t size() const { return limits_.size; }
  // Returns the smallest unit that the server can deallocate, bytes.
  uint64_t granularity() const { return granularity_; }

  // Returns the ranges with data. Includes ranges of unknown status. nullopt if the server never
  // reports a status.
  Result<std::optional<DataMap>> data();

  // Reads bytes from offset `at`. The range must be within the disk.
  Result<void> read(uint64_t at, std::span<std::byte> to);
  Result<PartitionTable> partition_table();

  // Returns why the proxy has given up the server permanently. nullopt if it has not. Thread-safe.
  std::optional<Error> loss() const;
  // Returns loss(), if it has a value and `error` is not a cancellation. Otherwise returns `error`.
  Error explained(Error error) const;

  // Flushes written data to stable storage.
  Result<void> flush();

  // Ends the server, which then completes a QCOW2 image. No other call may follow.
  Result<void> close();

 private:
  DiskServer(const GuestDisk& disk, const Cancel& cancel) : disk_(disk), stop_(cancel) {}
  Result<void> ask_remote(const nbd::NbdTuning& tuning, Access access);
  Result<void> hand_over_keys(std::vector<std::string>& words);
  Result<void> serve(const std::vector<std::string>& command);

  const GuestDisk& disk_;
  // Never requested: a writing server must not be interrupted.
  const Cancel never_;
  Stop patient_{never_};
  Stop stop_;
  std::shared_ptr<nbd::NbdEndpoint> remote_;  // the user's command, if the disk is one
  std::string remote_uri_;
  std::optional<nbd::ProxyNote> note_;  // of the proxy
  std::vector<PassphraseFile> keys_;    // of an encrypted image
  std::shared_ptr<nbd::NbdEndpoint> endpoint_;
  std::unique_ptr<nbd::NbdSession> session_;
  std::optional<PartitionTable> table_;  // of a disk on the user's server
  std::unique_ptr<nbd::NbdStatus> status_;
  nbd::NbdLimits limits_;
  uint64_t granularity_ = 0;
};

// Calls DiskServer::explained() of all servers.
Error explained(Error error, const std::vector<std::unique_ptr<DiskServer>>& servers);

}  // namespace vc::appliance
