#include "guest/filesystem/ntfs/ntfs_metadata.h"

#include "base/rounding.h"

namespace vc::guest {

namespace {

// The boot sectors and the boot loader. The header of shadow copies is there, too.
constexpr uint64_t kBootArea = 8192;

}  // namespace

Result<Ranges> ntfs_metadata(const NtfsVolume& volume) {
  Ranges::Builder builder;
  builder.add(0, divide_up(kBootArea, volume.cluster_size()));
  for (uint64_t number = 0; number <= static_cast<uint64_t>(NtfsRecord::kExtensions); ++number) {
    ASSIGN_OR_RETURN(const Block record, volume.record(number));
    ASSIGN_OR_RETURN(const auto runs, volume.runs_of(record));
    for (const NtfsRun& run : runs)
      if (run.lcn) builder.add(*run.lcn, *run.lcn + run.length);
  }
  return builder.take();
}

}  // namespace vc::guest
