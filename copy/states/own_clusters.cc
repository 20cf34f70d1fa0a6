#include "copy/states/own_clusters.h"

#include <algorithm>

namespace vc::copy {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

constexpr size_t kOwnExtentsAtOnce = 4096;

// Returns the part [begin, end) of an extent.
Extent part_of(const Extent& extent, GuestOffset begin, GuestOffset end) {
  Extent part = extent;
  if (part.kind == ExtentKind::kData || part.preallocated) part.host += begin - extent.guest;
  part.guest = begin;
  part.length = end - begin;
  return part;
}

Extent left_out(const Extent& extent) {
  Extent hole;
  hole.guest = extent.guest;
  hole.length = extent.length;
  return hole;
}

}  // namespace

Result<bool> OwnClusters::is_own(ClusterIndex cluster) {
  if (cluster_ == cluster) return is_cluster_own_;
  const uint64_t table = map_.geometry().l1_index(cluster);
  if (table_ != table) {
    ASSIGN_OR_RETURN(const size_t first, map_.first_with_table(state_, table));
    is_table_own_ = first == state_;
    table_ = table;
  }
  bool own = is_table_own_;
  if (own) {
    ASSIGN_OR_RETURN(const size_t first, map_.first_with(state_, cluster));
    own = first == state_;
  }
  cluster_ = cluster;
  is_cluster_own_ = own;
  return own;
}

// Appends the parts of an extent. Returns false if that stops before its end.
Result<bool> OwnClusters::split(const Extent& extent, size_t first, std::vector<Extent>& out) {
  const auto add = [&](const Extent& part) {
    if (out.size() == first || !join(out.back(), part)) out.push_back(part);
  };
  if (extent.kind == ExtentKind::kUnallocated || (extent.reads_as_zero() && !explicit_zeros_)) {
    add(extent);
    return true;
  }
  const qcow2::Geometry& geometry = map_.geometry();
  for (GuestOffset at = extent.guest; at < extent.end();) {
    if (out.size() - first >= kOwnExtentsAtOnce) return false;
    const ClusterIndex cluster = geometry.cluster_of(at);
    const GuestOffset end = std::min(extent.end(), geometry.start_of(cluster + 1));
    const Extent part = part_of(extent, at, end);
    ASSIGN_OR_RETURN(const bool own, is_own(cluster));
    add(own ? part : left_out(part));
    at = end;
  }
  return true;
}

Result<void> OwnClusters::map(GuestOffset at, uint64_t length, std::vector<Extent>& out) {
  std::vector<Extent> all;
  RETURN_IF_ERROR(disk_.map(at, length, all));
  const size_t first = out.size();
  for (const Extent& extent : all) {
    ASSIGN_OR_RETURN(const bool complete, split(extent, first, out));
    if (!complete) break;
  }
  return {};
}

}  // namespace vc::copy
