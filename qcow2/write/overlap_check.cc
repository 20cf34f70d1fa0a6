#include "qcow2/write/overlap_check.h"

#include <fmt/format.h>

#include <algorithm>

namespace vc::qcow2 {

void OverlapCheck::add(HostCluster first, uint64_t count, Kind kind) {
  for (uint64_t i = 0; i < count; ++i) words_.push_back(word(first + i, kind));
}

Result<void> OverlapCheck::complete() {
  std::sort(words_.begin(), words_.end());
  words_.erase(std::unique(words_.begin(), words_.end()), words_.end());
  words_.shrink_to_fit();
  const auto same = std::adjacent_find(words_.begin(), words_.end(), [](uint64_t a, uint64_t b) {
    return hit(a).cluster == hit(b).cluster;
  });
  if (same == words_.end()) return {};
  return fail(Error::corrupt(fmt::format(
      "cluster {} is both {} and {}: repair the image first (virt-compact check -r all)",
      hit(*same).cluster.value(), to_string(hit(*same).kind), to_string(hit(same[1]).kind))));
}

void OverlapCheck::insert(HostCluster cluster, Kind kind) {
  const uint64_t it = word(cluster, kind);
  words_.insert(std::upper_bound(words_.begin(), words_.end(), it), it);
}

void OverlapCheck::erase(HostCluster first, uint64_t count) {
  words_.erase(std::lower_bound(words_.begin(), words_.end(), word(first, Kind{})),
               std::lower_bound(words_.begin(), words_.end(), word(first + count, Kind{})));
}

std::optional<OverlapCheck::Hit> OverlapCheck::find(HostCluster first, uint64_t count) const {
  const auto at = std::lower_bound(words_.begin(), words_.end(), word(first, Kind{}));
  if (at == words_.end() || hit(*at).cluster >= first + count) return std::nullopt;
  return hit(*at);
}

const char* to_string(OverlapCheck::Kind kind) {
  switch (kind) {
    case OverlapCheck::Kind::kHeader:
      return "the header";
    case OverlapCheck::Kind::kL1Table:
      return "the L1 table";
    case OverlapCheck::Kind::kL2Table:
      return "an L2 table";
    case OverlapCheck::Kind::kRefcountTable:
      return "the refcount table";
    case OverlapCheck::Kind::kRefcountBlock:
      return "a refcount block";
    case OverlapCheck::Kind::kSnapshotTable:
      return "the snapshot table";
    case OverlapCheck::Kind::kSnapshotL1Table:
      return "the L1 table of a snapshot";
  }
  return "";
}

}  // namespace vc::qcow2
