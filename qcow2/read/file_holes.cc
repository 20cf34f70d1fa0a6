#include "qcow2/read/file_holes.h"

#include <algorithm>
#include <utility>

#include "base/rounding.h"

namespace vc::qcow2 {

// Queries each data run once: images have more extents than their files.
Result<FileHoles::Run> FileHoles::run_at(const Storage& storage, Known& known, uint64_t at,
                                         uint64_t limit, uint64_t cluster_size) {
  if (at >= known.begin && at < known.end) return Run{std::min(limit, known.end - at), true};
  ASSIGN_OR_RETURN(const uint64_t size, storage.size());
  // Past the end: the read reports the error.
  if (at >= size) return Run{limit, true};
  ++questions_;
  ASSIGN_OR_RETURN(const auto run, storage.run_at(HostOffset(at), size - at));
  if (run.data) known = {at, at + run.length};
  // The file may end inside its last cluster.  A cluster past that is missing.
  const uint64_t stop = at + run.length < size ? at + run.length : round_up(size, cluster_size);
  return Run{std::min(limit, stop - at), run.data};
}

Result<void> FileHoles::split(const Disk& disk, std::vector<Extent>& extents, size_t first,
                              size_t max_extents) {
  known_.resize(disk.layers().size());
  std::vector<Extent> all;
  for (size_t i = first; i < extents.size() && first + all.size() < max_extents; ++i) {
    Extent rest = extents[i];
    const Storage* const storage =
        rest.kind == ExtentKind::kData ? disk.layers()[rest.depth]->cluster_storage() : nullptr;
    const auto compression = disk.layers()[rest.depth]->compression();
    const uint64_t cluster_size = compression ? compression->cluster_size : 1;
    while (storage && rest.length > 0 && first + all.size() < max_extents) {
      ASSIGN_OR_RETURN(auto run, run_at(*storage, known_[rest.depth], rest.host.value(),
                                        rest.length, cluster_size));
      if (!run.data && run.length < std::min(kShortest, rest.length)) run.data = true;
      Extent part = rest;
      part.length = run.length;
      if (!run.data) part.kind = ExtentKind::kZero;
      rest.guest += run.length;
      rest.host += run.length;
      rest.length -= run.length;
      if (all.empty() || !join(all.back(), part)) all.push_back(part);
    }
    if (!storage) all.push_back(rest);
  }
  extents.resize(first);
  extents.insert(extents.end(), all.begin(), all.end());
  return {};
}

}  // namespace vc::qcow2
