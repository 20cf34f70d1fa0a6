#include "qcow2/write/overlap_check.h"

#include <fmt/format.h>

#include <algorithm>

namespace vc::qcow2 {

void OverlapCheck::add(HostCluster first, uint64_t count, Structure structure) {
  for (uint64_t i = 0; i < count; ++i) words_.push_back(word(first + i, structure));
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
      hit(*same).cluster.value(), with_article(hit(*same).structure),
      with_article(hit(same[1]).structure))));
}

void OverlapCheck::merge(const OverlapCheck& other) {
  const auto middle = static_cast<ptrdiff_t>(words_.size());
  words_.insert(words_.end(), other.words_.begin(), other.words_.end());
  std::inplace_merge(words_.begin(), words_.begin() + middle, words_.end());
}

void OverlapCheck::insert(HostCluster cluster, Structure structure) {
  const uint64_t it = word(cluster, structure);
  words_.insert(std::upper_bound(words_.begin(), words_.end(), it), it);
}

void OverlapCheck::erase(HostCluster first, uint64_t count) {
  words_.erase(std::lower_bound(words_.begin(), words_.end(), word(first, Structure{})),
               std::lower_bound(words_.begin(), words_.end(), word(first + count, Structure{})));
}

std::optional<OverlapCheck::Hit> OverlapCheck::find(HostCluster first, uint64_t count) const {
  const auto at = std::lower_bound(words_.begin(), words_.end(), word(first, Structure{}));
  if (at == words_.end() || hit(*at).cluster >= first + count) return std::nullopt;
  return hit(*at);
}

}  // namespace vc::qcow2
