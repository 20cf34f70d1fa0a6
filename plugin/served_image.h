// The image that this server serves, and the disks in it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "qcow2/chain.h"
#include "qcow2/disk.h"
#include "qcow2/result.h"
#include "qcow2/snapshot_table.h"

namespace plugin {

// What the command line said.
struct Config {
  std::string file;      // absolute
  std::string snapshot;  // what the export "" shows, by id or name; empty: the disk as it is now
  qcow2::OpenOptions open;
};

// A disk as clients see it.
struct ServedDisk {
  qcow2::Disk disk;
  std::string description;  // one line, for people
};

// Opened once for the process, before it forks; read from by all connections.  Thread-safe.
class ServedImage {
 public:
  struct Export {
    std::string name;
    std::string description;
  };

  static qcow2::Result<std::unique_ptr<ServedImage>> open(const Config& config);

  // "" and one for each internal snapshot, within nbdkit's limits.  Each name leads disk () to what
  // its description tells, and none stands twice.
  const std::vector<Export>& exports() const { return exports_; }

  // The disk behind an export name: "", or "snapshot:" and a snapshot's id or name.  All who read
  // the same snapshot at one time share its L1 table.
  qcow2::Result<std::shared_ptr<const ServedDisk>> disk(std::string_view export_name) const;

  // The size of a read that does no work twice, bytes.
  uint64_t preferred_block_size() const;

 private:
  explicit ServedImage(qcow2::Chain chain) : chain_(std::move(chain)) {}

  std::vector<Export> list_exports() const;
  qcow2::Result<std::shared_ptr<const ServedDisk>> snapshot(std::string_view id_or_name) const;

  qcow2::Chain chain_;
  std::shared_ptr<const ServedDisk> main_;  // what the export "" shows
  std::vector<Export> exports_;
  mutable std::mutex mutex_;
  // Those that somebody reads, or did; guarded by mutex_.
  mutable std::map<const qcow2::Snapshot*, std::weak_ptr<const ServedDisk>> snapshots_;
};

}  // namespace plugin
