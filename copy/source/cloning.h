// Clones: data that a copy shares with its source on a filesystem that shares blocks ("reflink").
//
// Plain clusters whose bytes need no change are not read and written, but cloned. CloneFinder
// decides which; the sinks clone them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "copy/source/chunk.h"
#include "copy/source/reflink.h"
#include "storage/file_storage.h"
#include "storage/offset.h"
#include "storage/output_file.h"

namespace vc::copy {

// Thread-safe.
class Cloning {
 public:
  // The smallest group of clusters that is cloned or copied as a whole, bytes.
  static constexpr uint64_t kSmallestGroup = 64 << 10;

  struct Options {
    Reflink mode = Reflink::kAuto;
    uint64_t cluster_size = 0;  // of the destination, bytes
    // Zeros are searched only in groups that begin with a block of zeros, not in every cluster.
    bool search_groups = false;
  };

  // Finds out which of `files` can be cloned into `out`. Returns nullptr if that is none of them
  // and the mode does not demand it. `out` must be empty, and must outlive the object.
  static Result<std::unique_ptr<Cloning>> create(
      OutputFile& out, const Options& options, std::span<const std::shared_ptr<FileStorage>> files);

  // Returns false if data of `file` must be copied. A file that was not known to create() is tried.
  bool can_clone(const FileStorage& file) const;
  // Returns the reason, an error that names the file.
  Error reason(const FileStorage& file) const;
  // Returns true if all plain data must be cloned.
  bool is_demanded() const { return options_.mode == Reflink::kAlways; }
  // Returns true if clones of `file` have succeeded without exception.
  bool is_proven(const FileStorage& file) const;

  // Offsets of clones are multiples of this, bytes.
  uint64_t block() const { return block_; }
  // Returns the length of a group, bytes: at least a cluster.
  uint64_t group() const { return std::max(options_.cluster_size, kSmallestGroup); }
  bool searches_groups() const { return options_.search_groups; }

  // Clones the pieces of a chunk that belong to cloned clusters, which have their places, now or
  // later. Copies what cannot be cloned after all, unless clones are demanded.
  Result<void> write(const Chunk& chunk);
  // Clones what still waits.
  Result<void> finish();

  // Returns the bytes that were cloned so far.
  uint64_t cloned() const { return cloned_; }

 private:
  struct Known {
    FileIdentity file;
    bool can = false;
    bool has = false;  // a clone has succeeded
    Error reason = Error::cancelled();
  };
  struct Run {
    const FileStorage* from = nullptr;
    HostOffset at;
    uint64_t length = 0;
    HostOffset to;
  };

  Cloning(OutputFile& out, const Options& options) : out_(out), options_(options) {}
  Result<void> try_file(const FileStorage& file, uint64_t block);
  void learn(const FileStorage& file, bool can, Error reason);
  Known* find(const FileStorage& file) REQUIRES(mutex_);
  const Known* find(const FileStorage& file) const REQUIRES(mutex_);
  std::vector<Run> runs_of(const Chunk& chunk) const;
  Result<void> share(const Run& run);
  Result<void> share_waiting() REQUIRES(waiting_mutex_);
  Result<void> copy(const Run& run);

  OutputFile& out_;
  const Options options_;
  uint64_t block_ = 0;
  std::atomic<uint64_t> cloned_ = 0;
  mutable Mutex mutex_;
  std::vector<Known> known_ GUARDED_BY(mutex_);
  Mutex waiting_mutex_;
  std::vector<Run> waiting_ GUARDED_BY(waiting_mutex_);
};

}  // namespace vc::copy
