#include "qcow2/check/table_ranges.h"

#include <algorithm>
#include <set>
#include <utility>

namespace vc::qcow2 {

std::vector<TableRanges::Piece> TableRanges::pieces(uint32_t active) const {
  // The offset and the index of each start or end of a range.
  std::vector<std::pair<uint64_t, size_t>> edges;
  for (size_t i = 0; i < ranges_.size(); ++i) {
    edges.emplace_back(ranges_[i].begin, i);
    edges.emplace_back(ranges_[i].end, i);
  }
  std::sort(edges.begin(), edges.end());

  std::vector<Piece> pieces;
  std::set<size_t> open;
  size_t active_open = ranges_.size();  // index of the active range; the size means none
  uint64_t from = 0;
  for (const auto& [at, which] : edges) {
    if (!open.empty() && at > from) {
      const bool is_active = active_open < ranges_.size();
      const Range& owner = ranges_[is_active ? active_open : *open.begin()];
      pieces.push_back({HostOffset(from), at - from, open.size() - (is_active ? 1 : 0), is_active,
                        owner.owner, HostOffset(owner.begin)});
    }
    from = at;
    const bool begins = open.insert(which).second;
    if (!begins) open.erase(which);
    if (ranges_[which].owner == active) active_open = begins ? which : ranges_.size();
  }
  return pieces;
}

}  // namespace vc::qcow2
