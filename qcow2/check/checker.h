// Reads all metadata of an image, however damaged, and compares it with the format and with itself.
//
// Opening an Image fails on metadata that violates the format; the checker reports the damage and
// continues.  Counts and categories follow `qemu-img check`, so that both report the same sums; the
// tests contain a table of the differences.
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

namespace vc::qcow2 {

struct CheckSums {
  uint64_t corruptions = 0;
  uint64_t leaks = 0;
  uint64_t check_errors = 0;
  // Clusters of the current disk.
  uint64_t total_clusters = 0;
  uint64_t allocated_clusters = 0;
  uint64_t fragmented_clusters = 0;
  uint64_t compressed_clusters = 0;
  uint64_t image_end_offset = 0;  // end of the last cluster that is counted or referenced; bytes
  // Single counts cannot be repaired: all refcounts must be rebuilt.
  bool needs_rebuild = false;
  // The reason for that is a table or a block that cannot be used as one.
  bool refcounts_unusable = false;
  // A structure with references is unreadable, or differs from what was once written there:
  // clusters that seem unreferenced may be in use, and no count may be lowered.
  bool references_unknown = false;
  // The reason for that is a table of zeros, with leaks that look like its references.
  bool references_lost = false;
  // The reason for that is a read error of the storage, which may be temporary.
  bool unreadable = false;
  // The end of the last referenced cluster past the end of the file, as far as it is close enough
  // that the file may have reached it; 0: none.
  uint64_t end_of_outside = 0;
  // Compressed clusters that a deep check decoded, and those that it failed to decode.
  uint64_t decoded_clusters = 0;
  uint64_t undecodable_clusters = 0;
  Fragmentation::Figures order;  // seeks of a guest that reads the whole disk
  uint64_t passes = 1;  // number of passes over all tables, to stay within the memory limit
};

// Must be used from one thread at a time.
class CheckObserver {
 public:
  virtual ~CheckObserver() = default;
  // Receives a finding.  The order is the same in each run.  A malicious image can cause millions
  // of findings.
  virtual void found(const Finding& finding) = 0;
  // Reports progress: `done` of `total` bytes of metadata (and of compressed data, in a deep
  // check).
  virtual void progress(uint64_t /*done*/, uint64_t /*total*/) {}
  // Returns whether to end the check with a cancelled error.  Called often, from any thread.
  virtual bool cancelled() { return false; }
};

struct CheckOptions {
  bool deep = false;     // decode every compressed cluster
  unsigned threads = 0;  // 0: one per processor
  // The approximate size of the counters in bytes (four times as much where clusters have more than
  // 254 references).
  uint64_t count_memory = 256 << 20;
};

class Checker {
 public:
  // Reads the header, which must be good enough to find the tables: otherwise returns an error;
  // qemu-img cannot open such an image either.  Accepts images that are encrypted, marked as
  // corrupt, or without a usable refcount table.  `storage` must outlive the checker, which never
  // writes to it.
  static Result<Checker> open(const Storage& storage, const CheckOptions& options);
  Checker(Checker&&) noexcept;
  Checker& operator=(Checker&&) noexcept;
  ~Checker();

  // Returns the header.  Its fields are within limits, except those of the snapshot and refcount
  // tables.
  const Header& header() const;

  // Reports all damage to `observer`.  Returns an error only if the storage is not readable at all,
  // or if the observer cancels.
  Result<CheckSums> run(CheckObserver& observer);

  // Walks all references and passes the resulting counts to `visit`, window by window from cluster
  // 0.  With `with_refcounts`, also counts the clusters of the refcount table and of its blocks;
  // callers that rebuild the refcounts pass false.  In a deep check, compressed clusters are
  // counted by the length of their streams, not by their descriptors.
  using Visit = std::function<Result<void>(const ReferenceCounts& counts)>;
  Result<void> count(bool with_refcounts, CheckObserver& observer, const Visit& visit);

  // Returns the clusters of the file, including a partial last one; references past them are not
  // counted.
  uint64_t clusters() const;

 private:
  class Work;
  explicit Checker(std::unique_ptr<Work> work);
  std::unique_ptr<Work> work_;
};

}  // namespace vc::qcow2
