// The image that this server serves, and the disks in it.
//
// It is opened before nbdkit forks, for errors to reach the user, but nbdkit tells only at a
// connection whether anybody may write (nbdkit -r): writing begins with the first that may.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "nbdkit/serving/snapshot_exports.h"
#include "plugin/served_disk.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/chain.h"

namespace plugin {

// What the command line said.
struct Config {
  std::string file;      // absolute
  std::string snapshot;  // what the export "" shows, by id or name; empty: the disk as it is now
  qcow2::OpenOptions open;
  WritePath::Options write;
};

// Opened once for the process; used by all connections.  Thread-safe.
class ServedImage {
 public:
  static qcow2::Result<std::unique_ptr<ServedImage>> open(const Config& config);

  // "" and one for each internal snapshot, within nbdkit's limits.  Each name leads disk () to what
  // its description tells, and none stands twice.
  const std::vector<Export>& exports() const { return exports_; }

  // The disk behind an export name: "", or "snapshot:" and a snapshot's id or name.
  qcow2::Result<std::shared_ptr<ServedDisk>> disk(std::string_view export_name) const;

  // Makes `disk` writable, if it can be; from then on it is.  What stands in the way for good (a
  // snapshot, a file that is read-only, an image that is damaged) is no error: the disk is served
  // read-only, and the first time `why` is told in a line.  An error is what may be gone next time.
  qcow2::Result<void> start_writing(ServedDisk& disk, std::string& why);

  // Puts all changes on the disk and cuts the file.  No request may be under way, and none may
  // follow.  Does nothing if nobody could write.
  qcow2::Result<void> close();

  // Of what has been written; nothing when nobody could.
  std::optional<qcow2::DiskWriter::Statistics> statistics() const;

  // The size of a read that does no work twice, bytes.
  uint64_t preferred_block_size() const;

 private:
  ServedImage(qcow2::Chain chain, const Config& config)
      : chain_(std::move(chain)),
        write_options_(config.write),
        force_share_(config.open.force_share) {}

  std::vector<Export> list_exports() const;
  qcow2::Result<std::shared_ptr<ServedDisk>> snapshot(std::string_view id_or_name) const;

  qcow2::Chain chain_;
  const WritePath::Options write_options_;
  const bool force_share_;
  std::shared_ptr<ServedDisk> main_;  // what the export "" shows
  bool main_is_snapshot_ = false;
  std::vector<Export> exports_;
  mutable std::mutex mutex_;
  // Those that somebody reads, or did; guarded by mutex_.
  mutable std::map<const qcow2::Snapshot*, std::weak_ptr<ServedDisk>> snapshots_;
  bool read_only_for_good_ = false;  // guarded by mutex_
};

}  // namespace plugin
