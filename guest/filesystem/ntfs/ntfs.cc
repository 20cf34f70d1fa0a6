#include "guest/filesystem/ntfs/ntfs.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/rounding.h"
#include "guest/filesystem/ntfs/ntfs_files.h"
#include "guest/filesystem/ntfs/ntfs_metadata.h"
#include "guest/filesystem/ntfs/ntfs_state.h"
#include "guest/filesystem/ntfs/ntfs_volume.h"
#include "guest/filesystem/ntfs/shadow_copies.h"
#include "guest/reading/bitmap_runs.h"

namespace vc::guest {

namespace {

constexpr uint64_t kPiece = 1 << 20;

bool probe(const Fields& head) {
  return head.has(3, "NTFS    ");
}

// Limit of Windows's implementation.
constexpr uint64_t kMostClusters = UINT32_MAX;

Result<NtfsAttribute> bitmap_of(const NtfsVolume& volume) {
  if (volume.clusters() > kMostClusters) return doubt("it has more clusters than Windows supports");
  ASSIGN_OR_RETURN(NtfsAttribute bitmap, volume.get(NtfsRecord::kBitmap, NtfsAttributeType::kData));
  if (bitmap.is_compressed_or_sparse() || bitmap.initialized < divide_up(volume.clusters(), 8) ||
      bitmap.size < divide_up(volume.clusters(), 8))
    return doubt("its allocation bitmap is damaged");
  for (const NtfsRun& run : bitmap.runs)
    if (!run.lcn) return doubt("its allocation bitmap is damaged");
  return bitmap;
}

Result<Ranges> free_clusters(const NtfsVolume& volume) {
  ASSIGN_OR_RETURN(const NtfsAttribute bitmap, bitmap_of(volume));
  Ranges::Builder builder;
  for (uint64_t first = 0; first < volume.clusters(); first += kPiece * 8) {
    const uint64_t bits = std::min(kPiece * 8, volume.clusters() - first);
    ASSIGN_OR_RETURN(const Block piece, volume.read(bitmap, first / 8, divide_up(bits, 8)));
    add_clear_runs(piece.bytes(), bits, first, builder);
  }
  Ranges free = builder.take();
  ASSIGN_OR_RETURN(const Ranges metadata, ntfs_metadata(volume));
  if (!free.within(metadata).empty()) return doubt("its allocation bitmap marks metadata as free");
  return free;
}

Result<Reading> read(const ByteView& view) {
  ASSIGN_OR_RETURN(const NtfsVolume volume, NtfsVolume::open(view));
  // First, since a volume with a saved session may be unclean, too. The session may have metadata
  // of other volumes in memory.
  ASSIGN_OR_RETURN(const bool is_hibernated, is_ntfs_hibernated(volume));
  if (is_hibernated) return suspended("Windows is hibernated, or was shut down with fast startup");
  ASSIGN_OR_RETURN(const NtfsState state, check_ntfs_clean(volume));
  ASSIGN_OR_RETURN(const auto shadow_copies, find_shadow_copies(view));
  if (shadow_copies == ShadowCopies::kHere)
    return left_alone("Windows has shadow copies of it, which need the freed data");
  if (shadow_copies == ShadowCopies::kElsewhere)
    return left_alone(
        "Windows keeps shadow copies of it on another volume, which need the freed data");
  Reading reading;
  ASSIGN_OR_RETURN(const Ranges free, free_clusters(volume));
  reading.free = free.scaled(volume.cluster_size(), 0);
  reading.label = state.label;
  reading.is_unmarked = state.has_empty_log;
  reading.uuid = fmt::format("{:016X}", volume.serial());
  return reading;
}

Result<std::vector<FoundFile>> find(const ByteView& view, const Ranges& free,
                                    const FileKinds& kinds) {
  ASSIGN_OR_RETURN(const NtfsVolume volume, NtfsVolume::open(view));
  return find_ntfs_files(volume, free, kinds);
}

}  // namespace

const Format kNtfs{"ntfs", probe, read, find};

}  // namespace vc::guest
