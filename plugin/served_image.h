// The image that this server serves, and its disks.
//
// The image is opened before nbdkit forks, so that errors reach the user. nbdkit reports only per
// connection whether writes are allowed (nbdkit -r), so the first writable connection starts
// writing.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "nbdkit/serving/snapshot_exports.h"
#include "plugin/served_disk.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/chain.h"

namespace vc::plugin {

// Settings from the command line.
struct Config {
  std::string file;      // absolute path
  std::string snapshot;  // shown as export ""; ID or name; empty: current disk
  qcow2::OpenOptions open;
  WritePath::Options write;
};

// Opened once per process, used by all connections. Thread-safe.
class ServedImage {
 public:
  static Result<std::unique_ptr<ServedImage>> open(const Config& config);

  // Returns "" and one export per internal snapshot, within nbdkit's limits. With each name, disk()
  // returns the disk that the description describes. Names are unique.
  const std::vector<nbdkit::Export>& exports() const { return exports_; }

  // Returns the disk of an export name: "", or "snapshot:" and a snapshot's ID or name.
  Result<std::shared_ptr<ServedDisk>> disk(std::string_view export_name) const;

  // Makes `disk` writable if possible; it then stays writable. A permanent obstacle (a snapshot, a
  // read-only file, a damaged image) is no error: the disk is served read-only, and the first call
  // sets `why` to one line of text. A temporary obstacle is an error.
  Result<void> start_writing(ServedDisk& disk, std::string& why);

  // Writes all changes to stable storage and truncates the file. No request may be in progress or
  // follow. Does nothing if the image was never writable.
  Result<void> close();

  // Returns statistics of the writes. nullopt if the image was never writable.
  std::optional<qcow2::DiskWriter::Statistics> statistics() const;

  // Returns the size of a read that decodes nothing twice, bytes.
  uint64_t preferred_block_size() const;

 private:
  ServedImage(qcow2::Chain chain, const Config& config)
      : chain_(std::move(chain)),
        write_options_(config.write),
        force_share_(config.open.force_share) {}

  std::vector<nbdkit::Export> list_exports() const;
  Result<std::shared_ptr<ServedDisk>> snapshot(std::string_view id_or_name) const;

  qcow2::Chain chain_;
  const WritePath::Options write_options_;
  const bool force_share_;
  std::shared_ptr<ServedDisk> main_;  // shown as export ""
  bool main_is_snapshot_ = false;
  std::vector<nbdkit::Export> exports_;
  mutable Mutex mutex_;
  // Snapshots that are or were in use.
  mutable std::map<const qcow2::Snapshot*, std::weak_ptr<ServedDisk>> snapshots_ GUARDED_BY(mutex_);
  bool read_only_for_good_ GUARDED_BY(mutex_) = false;
};

}  // namespace vc::plugin
