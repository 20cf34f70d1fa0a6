#include "guest/filesystem/ntfs/ntfs_metadata.h"
#include "base/rounding.h"

namespace vc::guest {

namespace {

// The boot sectors and the boot loader. The header of shadow copies is there, too.
constexpr uint64_t kBootArea = 8192;

void add(const std::vector<NtfsRun>& runs, Ranges::Builder& out) {
  for (const NtfsRun& run : runs)
    if (run.lcn) out.add(*run.lcn, *run.lcn + run.length);
}

}  // namespace

Result<Ranges> ntfs_metadata(const NtfsVolume& volume) {
  Ranges::Builder builder;
  builder.add(0, divide_up(kBootArea, volume.cluster_size()));
  // These records may have attribute lists, which lead to runs in other records.
  for (const NtfsRecord number : {NtfsRecord::kMft, NtfsRecord::kMftMirror, NtfsRecord::kLogFile,
                                  NtfsRecord::kAttributeDefinitions, NtfsRecord::kBitmap}) {
    ASSIGN_OR_RETURN(const NtfsAttribute data, volume.get(number, NtfsAttributeType::kData));
    add(data.runs, builder);
  }
  ASSIGN_OR_RETURN(const Block root, volume.record(NtfsRecord::kRoot));
  ASSIGN_OR_RETURN(const auto index,
                   volume.find(root, NtfsAttributeType::kIndexAllocation, "$I30"));
  if (index) add(index->runs, builder);
  for (uint64_t number = 0; number <= static_cast<uint64_t>(NtfsRecord::kUpCase); ++number) {
    // A sparse file as long as the volume, which only maps defective clusters.
    if (number == static_cast<uint64_t>(NtfsRecord::kBadClusters)) continue;
    ASSIGN_OR_RETURN(const Block record, volume.record(number));
    ASSIGN_OR_RETURN(const auto runs, volume.runs_of(record));
    add(runs, builder);
  }
  return builder.take();
}

}  // namespace vc::guest
