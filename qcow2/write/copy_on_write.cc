// Writes of a DiskWriter that need a new mapping: the rest of a cluster is copied to its new place.
#include <algorithm>

#include "base/rounding.h"
#include "qcow2/write/disk_writer.h"

namespace vc::qcow2 {

namespace {

// Bytes to copy at once.
constexpr uint64_t kCopySize = 1 << 20;

}  // namespace

Result<void> DiskWriter::copy_old(GuestOffset begin, GuestOffset end, HostOffset host, bool fresh) {
  if (begin >= end) return {};
  // There is nothing to copy past the end of the disk, but old content there must not become
  // visible if the disk is extended.
  const GuestOffset disk_end(size());
  const GuestOffset stop = std::min(end, disk_end);
  if (begin < stop) {
    ASSIGN_OR_RETURN(const bool zero, reads_as_zero(begin, stop - begin));
    if (!zero) {
      std::vector<std::byte> buffer(std::min<uint64_t>(stop - begin, kCopySize));
      for (GuestOffset at = begin; at < stop; at += buffer.size()) {
        buffer.resize(std::min<uint64_t>(buffer.size(), stop - at));
        RETURN_IF_ERROR(disk_->read(at, buffer));
        RETURN_IF_ERROR(data_->write(host + (at - begin), buffer));
      }
      host += stop - begin;
      begin = stop;
    }
  }
  if (fresh || begin == end) return {};
  return data_->write_zeroes(host, end - begin);
}

Result<DiskWriter::Place> DiskWriter::find_place(ClusterIndex first, std::span<const L2Entry> old) {
  if (has_data_file())
    return Place{HostOffset(geometry_.start_of(first).value()), old.size(), false, false};
  if (mapping_->owns_host(old.front())) return Place{old.front().host(), 1, false, false};
  uint64_t wanted = 1;
  while (wanted < old.size() && !mapping_->owns_host(old[wanted])) ++wanted;
  ASSIGN_OR_RETURN(const Refcounts::Run run, refcounts_->allocate(wanted));
  allocated_ += run.count;
  return Place{geometry_.start_of(run.first), run.count, true, run.fresh && !image_->encryption()};
}

// Returns the start of the next subcluster with its own data, from `at` on, in the cluster at
// `begin`.
GuestOffset DiskWriter::end_of_hole(GuestOffset begin, L2Entry entry, GuestOffset at) const {
  const uint64_t unit = geometry_.subcluster_size();
  auto subcluster = static_cast<unsigned>((at - begin) / unit);
  while (subcluster < Geometry::kSubclusters && !mapping_->in_place(entry, subcluster))
    ++subcluster;
  return begin + subcluster * unit;
}

// Writes as much from `at` on as gets a new mapping in one piece, and returns the number of bytes;
// 0 if another request has mapped the cluster meanwhile.
Result<uint64_t> DiskWriter::write_allocating(GuestOffset at, std::span<const std::byte> from) {
  const ClusterIndex first = geometry_.cluster_of(at);
  const ClusterIndex end = std::min(mapping_->end_of_slice(first),
                                    ClusterIndex(geometry_.clusters_for(at.value() + from.size())));
  RETURN_IF_ERROR(prepare_header());
  const GuestLocks::Guard guard = guest_locks_.lock(first, end);

  std::vector<L2Entry> old;
  {
    const auto lock = map_->lock_exclusive();
    HostOffset host;
    ASSIGN_OR_RETURN(const uint64_t there, mapping_->find_in_place(at, 1, host));
    if (there > 0) return uint64_t{0};
    RETURN_IF_ERROR(mapping_->ensure_table(first));
    ASSIGN_OR_RETURN(old, mapping_->entries(first, end));
  }
  // Stops at the first cluster (or, in the first cluster, subcluster) that can be written in place:
  // another request may be writing to it without a lock.
  const auto stays = [&](L2Entry entry) {
    return extended() ? mapping_->owns_host(entry) && entry.allocated_mask() != 0
                      : mapping_->in_place(entry, 0);
  };
  old.erase(std::find_if(old.begin() + 1, old.end(), stays), old.end());

  ASSIGN_OR_RETURN(const Place place, find_place(first, old));
  if (!place.allocated) {
    std::optional<OverlapCheck::Hit> hit;
    {
      const auto lock = map_->lock_shared();
      hit = mapping_->table_at(place.host, place.clusters * geometry_.cluster_size());
    }
    if (hit) return fail(refuse_table(at, *hit).error());
  }
  const uint64_t cluster_size = geometry_.cluster_size();
  const uint64_t unit = geometry_.subcluster_size();
  const GuestOffset begin = geometry_.start_of(first);
  GuestOffset write_end = std::min(at + from.size(), begin + place.clusters * cluster_size);
  if (extended() && !place.allocated && stays(old.front()))
    write_end = std::min(write_end, end_of_hole(begin, old.front(), at));
  old.resize(geometry_.clusters_for(write_end - begin));
  const GuestOffset placed_end = begin + old.size() * cluster_size;

  // Copies the rest around the new bytes: up to the bounds of their subclusters, or of the whole
  // cluster if its content is elsewhere.
  const auto moves = [&](L2Entry entry) { return place.allocated && mapping_->has_data(entry); };
  const GuestOffset copy_begin =
      moves(old.front()) ? begin : GuestOffset(round_down(at.value(), unit));
  const GuestOffset copy_end =
      moves(old.back()) ? placed_end : GuestOffset(round_up(write_end.value(), unit));
  auto written = copy_old(copy_begin, at, place.host + (copy_begin - begin), place.fresh);
  if (written) written = data_->write(place.host + (at - begin), from.first(write_end - at));
  if (written)
    written = copy_old(write_end, copy_end, place.host + (write_end - begin), place.fresh);

  const auto lock = map_->lock_exclusive();
  for (uint64_t i = 0; written && i < old.size(); ++i) {
    const GuestOffset start = begin + i * cluster_size;
    L2Entry entry{(place.host + i * cluster_size).value() | kEntryCopied, 0};
    if (extended()) {
      const auto first_sub = static_cast<unsigned>((std::max(copy_begin, start) - start) / unit);
      const auto end_sub =
          static_cast<unsigned>((std::min(copy_end, start + cluster_size) - start) / unit);
      const uint64_t mask = subcluster_mask(first_sub, end_sub);
      entry.bitmap = moves(old[i]) ? 0 : old[i].bitmap;
      entry.bitmap = (entry.bitmap | mask) & ~(mask << 32);
    }
    written = mapping_->set_entry(first + i, entry);
    if (written && place.allocated) mapping_->unlink(old[i]);
  }
  if (written) return write_end - at;
  // No entry refers to the new clusters: frees them at once.  Discards their content, which on a
  // full filesystem would leave no space for the tables that a discard needs.
  if (place.allocated) {
    storage_->discard(place.host, place.clusters << geometry_.cluster_bits());
    std::vector<ClusterRun> freed;
    RETURN_IF_ERROR(
        refcounts_->release(geometry_.host_cluster_of(place.host), place.clusters, freed));
  }
  return fail(std::move(written).error());
}

}  // namespace vc::qcow2
