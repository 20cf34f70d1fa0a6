// What an image file is made of: one pass over all of its tables that takes damage as it comes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/check/fragmentation.h"
#include "qcow2/format/header.h"
#include "qcow2/format/snapshot_table.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace qcow2 {

// What a cluster of the file is there for.  One that has several uses counts once, for the one that
// is met first: metadata, then what the disk refers to, then its snapshots.
enum class HostUse : uint8_t {
  kMetadata,    // header, tables, refcounts, bitmaps
  kData,        // of the disk as it is now
  kCompressed,  // streams of the disk as it is now
  kReserved,    // reads as zeros, and keeps its place in the file
  kSnapshot,    // data and tables that snapshots alone refer to
  kLeaked,      // has a refcount, and nobody refers to it
  kFree,
};
inline constexpr size_t kHostUses = 7;

struct Survey {
  // Of the disk as it is now, as far as it lies in this file (or in its data file).
  Fragmentation::Figures order;
  uint64_t zero_bytes = 0;      // of the disk, that the image itself says are zeros
  uint64_t reserved_bytes = 0;  // of them, or of unused subclusters: have a place in the file

  // Clusters of the file, by their use; the sum is the length of the file.
  uint64_t clusters[kHostUses] = {};
  uint64_t of(HostUse use) const { return clusters[static_cast<size_t>(use)]; }
  // All that somebody refers to.
  uint64_t live() const {
    return of(HostUse::kMetadata) + of(HostUse::kData) + of(HostUse::kCompressed) +
           of(HostUse::kReserved) + of(HostUse::kSnapshot);
  }
  uint64_t allocated() const { return live() + of(HostUse::kLeaked); }

  // What could not be followed.  0: nothing stood in the way, which is less than `check` looks for.
  uint64_t damages = 0;
  std::string first_damage;
};

struct SurveyOptions {
  // Told of every cluster of the file once, in no order.
  std::function<void(HostCluster first, uint64_t count, HostUse use)> host = {};
  // Parts of the work.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

// Memory: a bit for each cluster of the file, two tables, and the L1 table.  Tables that lie in one
// place are gone through once.  A file of more clusters than ClusterSet takes is
// Error::unsupported; that the file cannot be read is an error, what stands in it is not.
Result<Survey> survey(const Storage& storage, const Header& header,
                      const std::vector<Snapshot>& snapshots, const SurveyOptions& options);

}  // namespace qcow2
