// The image that this server serves, and the disks in it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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

// Opened once for the process, before it forks; read from by all connections.  Thread-safe.
class ServedImage {
 public:
  struct Export {
    std::string name;
    std::string description;
  };

  static qcow2::Result<std::unique_ptr<ServedImage>> open(const Config& config);

  // "" and one for each internal snapshot.
  std::vector<Export> exports() const;

  // The disk behind an export name: "", or "snapshot:" and a snapshot's id or name.
  qcow2::Result<qcow2::Disk> disk(std::string_view export_name) const;

  // For people; nothing when there is no such export.
  std::optional<std::string> description(std::string_view export_name) const;

  // The size of a read that does no work twice, bytes.
  uint64_t preferred_block_size() const;

 private:
  ServedImage(Config config, qcow2::Chain chain, qcow2::Disk main)
      : config_(std::move(config)), chain_(std::move(chain)), main_(std::move(main)) {}

  const qcow2::Snapshot* snapshot_of(std::string_view export_name) const;

  Config config_;
  qcow2::Chain chain_;
  qcow2::Disk main_;  // what the export "" shows
};

}  // namespace plugin
