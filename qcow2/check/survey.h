// Classifies the clusters of an image file, in one pass over all tables; tolerates damage.
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

namespace vc::qcow2 {

// The use of a cluster of the file.  A cluster with several uses counts once, for the first one
// met: metadata, then the disk, then its snapshots.
enum class HostUse : uint8_t {
  kMetadata,    // header, tables, refcounts, bitmaps
  kData,        // of the current disk
  kCompressed,  // streams of the current disk
  kReserved,    // allocated, but reads as zeros
  kSnapshot,    // data and tables that only snapshots reference
  kLeaked,      // has a refcount, but no reference
  kFree,
};
inline constexpr size_t kHostUses = 7;

struct Survey {
  // Of the current disk, as far as it is in this file (or in its data file).
  Fragmentation::Figures order;
  uint64_t zero_bytes = 0;      // of the disk, with zeros recorded in the image itself
  uint64_t reserved_bytes = 0;  // of these, or of unused subclusters: allocated in the file

  // Clusters of the file by use; the sum is the length of the file.
  uint64_t clusters[kHostUses] = {};
  uint64_t of(HostUse use) const { return clusters[static_cast<size_t>(use)]; }
  // Returns the number of referenced clusters.
  uint64_t live() const {
    return of(HostUse::kMetadata) + of(HostUse::kData) + of(HostUse::kCompressed) +
           of(HostUse::kReserved) + of(HostUse::kSnapshot);
  }
  uint64_t allocated() const { return live() + of(HostUse::kLeaked); }

  // References that could not be followed.  0 means none; `check` detects more damage than this.
  uint64_t damages = 0;
  std::string first_damage;
};

struct SurveyOptions {
  // Called once for each cluster of the file, in no order.
  std::function<void(HostCluster first, uint64_t count, HostUse use)> host = {};
  // Reports parts of the work.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

// Surveys the file.  Uses memory for one bit per cluster of the file, two tables, and the L1 table.
// Reads tables at the same offset once.  Returns Error::unsupported if the file has more clusters
// than a ClusterSet holds.  Read errors are errors, damage is not.
Result<Survey> survey(const Storage& storage, const Header& header,
                      const std::vector<Snapshot>& snapshots, const SurveyOptions& options);

}  // namespace vc::qcow2
