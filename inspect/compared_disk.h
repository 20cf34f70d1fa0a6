// One of the two disks of a comparison: its map, and reads from several threads.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "copy/source/open_source.h"
#include "qcow2/read/extent.h"
#include "storage/file_storage.h"

namespace vc::inspect {

class ComparedDisk {
 public:
  // Opens a disk. Returns an error for a pipe, which does not support random access. `stop` must
  // outlive the disk.
  static Result<ComparedDisk> open(const copy::SourceOptions& options, const Stop& stop);

  const std::string& name() const { return source_->name(); }
  uint64_t size() const { return source_->size(); }
  // Returns what a salvage could not read so far. nullptr without a salvage.
  const qcow2::Losses* losses() const { return source_->losses(); }
  bool is_server() const { return lanes() > 0; }
  // Smallest efficient read, bytes: a compressed cluster is decoded as a whole.
  uint64_t unit() const { return source_->cluster_size().value_or(1); }
  // Number of threads that can read concurrently, each on a connection of its own. 0: any number.
  size_t lanes() const { return source_->fetchers(); }

  // Returns the extent that holds `at`, starting at `at`. Past the end of the disk, returns an
  // unallocated extent up to `end`. Offsets must be in ascending order. Not thread-safe.
  Result<qcow2::Extent> extent_at(uint64_t at, uint64_t end);

  // Returns true if one call can read `extent` and `next`, which starts where `extent` ends. True
  // for pieces of one compressed cluster, which is decoded once. False for two clusters, even if
  // they share a stream.
  bool can_read_together(const qcow2::Extent& extent, const qcow2::Extent& next) const;

  // Reads a data extent for thread number `lane`. Thread-safe.
  Result<void> read(const qcow2::Extent& extent, size_t lane, std::span<std::byte> to);

  // Returns the file that holds a data extent. nullopt if unknown.
  std::optional<FileStorage::Identity> file_of(const qcow2::Extent& extent) const {
    return source_->file_of(extent);
  }

 private:
  explicit ComparedDisk(std::unique_ptr<copy::Source> source) : source_(std::move(source)) {}

  std::unique_ptr<copy::Source> source_;
  std::vector<std::unique_ptr<Mutex>> lines_;  // one per connection to the server
  std::vector<qcow2::Extent> ahead_;           // known extents, in order
  size_t ahead_at_ = 0;                        // index of the first extent that is not used up
};

}  // namespace vc::inspect
