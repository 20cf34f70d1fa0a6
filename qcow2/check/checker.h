// Goes through all metadata of an image, as damaged as it may be, and compares it with what the
// format says and with itself.
//
// An opened Image refuses what contradicts the format; this one tells of it and goes on.  What it
// counts, and as what, follows `qemu-img check`, so that both come to the same sums; the tests hold
// a table of the differences.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "qcow2/check/finding.h"
#include "qcow2/check/fragmentation.h"
#include "qcow2/check/reference_counts.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace qcow2 {

struct CheckSums {
  uint64_t corruptions = 0;
  uint64_t leaks = 0;
  uint64_t check_errors = 0;
  // Clusters of the disk as it is now.
  uint64_t total_clusters = 0;
  uint64_t allocated_clusters = 0;
  uint64_t fragmented_clusters = 0;
  uint64_t compressed_clusters = 0;
  uint64_t image_end_offset = 0;  // behind the last cluster that is counted or referred to; bytes
  // Single counts cannot be mended: they have to be written anew, all of them.
  bool needs_rebuild = false;
  // That is so since their table, or a block, cannot be what it is used as.
  bool refcounts_unusable = false;
  // Something that refers to clusters could not be read, or is not what was once written there:
  // what nobody seems to refer to may be in use, and no count may be lowered.
  bool references_unknown = false;
  // The same since a table is all zeros, and leaks look like what it referred to.
  bool references_lost = false;
  // The same since the storage could not read it: perhaps it can at another time.
  bool unreadable = false;
  // Behind the last cluster behind the end of the file that something refers to, as far as it is
  // near enough for the file to have reached there; 0: none.
  uint64_t end_of_outside = 0;
  // Compressed clusters that a deep check decoded, and those that it decoded in vain.
  uint64_t decoded_clusters = 0;
  uint64_t undecodable_clusters = 0;
  Fragmentation::Figures order;  // how far a guest that reads the disk jumps about in the file
  uint64_t passes = 1;           // times that all tables were read, to count within the memory
};

// Called from one thread at a time.
class CheckObserver {
 public:
  virtual ~CheckObserver() = default;
  // In the same order each time.  A hostile image makes millions of them.
  virtual void found(const Finding& finding) = 0;
  // `done` of `total` bytes of metadata (of a deep check: and compressed data) are looked at.
  virtual void progress(uint64_t /*done*/, uint64_t /*total*/) {}
  // Asked often, from any thread: true ends the check with a cancelled error.
  virtual bool cancelled() { return false; }
};

struct CheckOptions {
  bool deep = false;     // decode every compressed cluster
  unsigned threads = 0;  // 0: as many as there are processors
  // Bytes of counters, roughly (four times as much where clusters have more than 254 references).
  uint64_t count_memory = 256 << 20;
};

class Checker {
 public:
  // Reads the header, which must be good enough to find the tables by: an error is what qemu-img,
  // too, cannot open.  Encrypted images, those marked as corrupt and such without a usable refcount
  // table are fine.  `storage` must outlive it; it is not written to.
  static Result<Checker> open(const Storage& storage, const CheckOptions& options);
  Checker(Checker&&) noexcept;
  Checker& operator=(Checker&&) noexcept;
  ~Checker();

  // Within limits but for the snapshot and refcount tables' fields.
  const Header& header() const;

  // Tells `observer` of all that is wrong.  An error is only that the storage cannot be read at
  // all, or that the observer wants to stop.
  Result<CheckSums> run(CheckObserver& observer);

  // Goes through all references and hands over the counts that follow from them, window by window
  // from cluster 0 on.  The clusters of the refcount table and of the blocks that it points to are
  // counted if `with_refcounts`; else as though there were none, for who writes new ones.  With
  // `deep`, compressed clusters count by what their streams take, not by their descriptors.
  using Visit = std::function<Result<void>(const ReferenceCounts& counts)>;
  Result<void> count(bool with_refcounts, CheckObserver& observer, const Visit& visit);

  // Clusters of the file, the last one perhaps in part; references end there.
  uint64_t clusters() const;

 private:
  class Work;
  explicit Checker(std::unique_ptr<Work> work);
  std::unique_ptr<Work> work_;
};

}  // namespace qcow2
