// One of the two disks of a comparison: its map, and reading it from many threads.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "copy/source/any_source.h"
#include "qcow2/read/extent.h"
#include "storage/file_storage.h"

namespace copy {

class ComparedDisk {
 public:
  // A pipe is an error: it cannot be read where the other disk has data.  `stop` outlives this.
  static qcow2::Result<ComparedDisk> open(const AnySource::Options& options, const Stop& stop);

  const std::string& name() const { return source_.get().name(); }
  uint64_t size() const { return source_.get().size(); }
  // Of a salvage, what could not be read so far; else nullptr.
  const qcow2::Losses* losses() const {
    return source_.local() ? source_.local()->losses() : nullptr;
  }
  bool is_server() const { return source_.nbd() != nullptr; }
  // What reads should not be cut smaller than, bytes: a compressed cluster is decoded as a whole.
  uint64_t unit() const { return source_.get().cluster_size().value_or(1); }
  // Threads that can read at once.
  size_t lanes() const { return source_.nbd() ? source_.nbd()->connections() : SIZE_MAX; }

  // The extent that holds `at`, cut to begin there.  Behind the end of the disk: nothing up to
  // `end`.  With calls in ascending order, one thread at a time.
  qcow2::Result<qcow2::Extent> extent_at(uint64_t at, uint64_t end);

  // Whether `next`, which begins where `extent` ends, can be read with it in one call.  Pieces of
  // one compressed cluster can: it is decoded once.  Two clusters never, though they may share a
  // stream.
  bool can_read_together(const qcow2::Extent& extent, const qcow2::Extent& next) const;

  // Reads an extent of data, for thread number `lane`; thread-safe.
  qcow2::Result<void> read(const qcow2::Extent& extent, size_t lane, std::span<std::byte> to);

  // The file in which an extent of data lies; nothing where that is not known.
  std::optional<qcow2::FileStorage::Identity> file_of(const qcow2::Extent& extent) const;

 private:
  explicit ComparedDisk(AnySource source) : source_(std::move(source)) {}

  AnySource source_;
  std::vector<std::optional<qcow2::FileStorage::Identity>> files_;  // by depth
  std::vector<std::unique_ptr<std::mutex>> lines_;                  // one for each of the server's
  std::vector<qcow2::Extent> ahead_;                                // in order
  size_t ahead_at_ = 0;                                             // the first that is of use
};

}  // namespace copy
