#include "copy/sink/clone_comparison.h"

#include <algorithm>

#include "base/rounding.h"

namespace vc::copy {

using qcow2::Extent;
using qcow2::ExtentKind;

Result<CloneComparison::Extents> CloneComparison::map_original(GuestOffset begin, GuestOffset end) {
  Extents extents;
  for (GuestOffset at = begin; at < end; at = extents.back().end())
    RETURN_IF_ERROR(original_.map(at, end - at, extents));
  return extents;
}

// Compares [begin, end), which both extents contain.
bool CloneComparison::are_shared(const Extent& copy, const Extent& original, GuestOffset begin,
                                 GuestOffset end) {
  if (copy.reads_as_zero() && original.reads_as_zero()) return true;
  if (copy.kind != ExtentKind::kData || original.kind != ExtentKind::kData) return false;
  const FileStorage* const file = copy_.plain_file(copy.depth);
  const FileStorage* const from = original_.plain_file(original.depth);
  // Blocks of different filesystems may have the same numbers.
  if (!file || !from || !cloning_.is_proven(*from)) return false;
  FileBlocks& mine = blocks_.try_emplace(file, file->descriptor()).first->second;
  FileBlocks& its = blocks_.try_emplace(from, from->descriptor()).first->second;
  return mine.are_shared((copy.host + (begin - copy.guest)).value(), end - begin, its,
                         (original.host + (begin - original.guest)).value());
}

Result<bool> CloneComparison::reads_equal(GuestOffset begin, GuestOffset end) {
  constexpr uint64_t kAtOnce = 1 << 20;
  std::vector<std::byte> mine(std::min(kAtOnce, end - begin));
  std::vector<std::byte> its(mine.size());
  for (GuestOffset at = begin; at < end; at += mine.size()) {
    const uint64_t length = std::min<uint64_t>(mine.size(), end - at);
    RETURN_IF_ERROR(copy_.read(at, std::span(mine).first(length)));
    RETURN_IF_ERROR(original_.read(at, std::span(its).first(length)));
    if (!std::equal(mine.begin(), mine.begin() + static_cast<ptrdiff_t>(length), its.begin()))
      return false;
  }
  return true;
}

Result<bool> CloneComparison::is_equal(const Chunk& chunk, GuestOffset begin, GuestOffset end) {
  ASSIGN_OR_RETURN(const Extents original, map_original(begin, end));
  auto mine = std::find_if(chunk.extents.begin(), chunk.extents.end(),
                           [&](const Extent& it) { return it.end() > begin; });
  auto its = original.begin();
  GuestOffset at = begin;
  while (at < end) {
    const GuestOffset stop = std::min({end, mine->end(), its->end()});
    if (!are_shared(*mine, *its, at, stop)) break;
    if (mine->end() == stop) ++mine;
    if (its->end() == stop) ++its;
    at = stop;
  }
  if (at == end) {
    shared_ += end - begin;
    return true;
  }
  read_ += end - begin;
  return reads_equal(begin, end);
}

Result<void> CloneComparison::mark_equal(Chunk& chunk, const qcow2::Geometry& geometry) {
  const uint64_t group = digests_.clone_group();
  const GuestOffset start = geometry.start_of(chunk.first);
  for (GuestOffset at = start; at < chunk.end(); at += group) {
    if (!digests_.has_clone(at)) continue;
    const GuestOffset end = std::min(at + group, chunk.end());
    {
      const MutexLock lock(mutex_);
      ASSIGN_OR_RETURN(const bool is_same, is_equal(chunk, at, end));
      if (!is_same) continue;
    }
    for (uint64_t i = (at - start) >> geometry.cluster_bits();
         i < chunk.clusters.size() && geometry.start_of(chunk.first + i) < end; ++i)
      if (chunk.clusters[i].kind == Chunk::Cluster::Kind::kData)
        chunk.clusters[i].clone = Chunk::Clone::kYes;
  }
  return {};
}

}  // namespace vc::copy
