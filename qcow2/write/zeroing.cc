// Zeroes ranges of a DiskWriter: whole clusters and subclusters by their entry, the rest by writing
// zeros.
#include <algorithm>

#include "base/rounding.h"
#include "qcow2/write/disk_writer.h"

namespace vc::qcow2 {

namespace {

// The bitmap of a cluster whose subclusters all read as zeros.
constexpr uint64_t kAllZero = 0xffffffff00000000;
// Bytes of zeros to write at once.
constexpr uint64_t kZerosAtOnce = 1 << 20;

// Returns whether all of a cluster reads as zeros, whatever the backing file contains.
bool is_zero_entry(L2Entry entry, bool extended) {
  if (entry.compressed()) return false;
  return extended ? entry.bitmap == kAllZero : entry.zero_flag();
}

}  // namespace

Result<void> DiskWriter::write_zeros(GuestOffset at, uint64_t length) {
  const std::vector<std::byte> zeros(std::min(length, kZerosAtOnce));
  set_changed(at, length);
  for (uint64_t done = 0; done < length; done += kZerosAtOnce)
    RETURN_IF_ERROR(
        write_range(at + done, std::span(zeros).first(std::min(length - done, kZerosAtOnce))));
  return {};
}

Result<void> DiskWriter::zero_clusters(ClusterIndex first, ClusterIndex end, bool unmap) {
  RETURN_IF_ERROR(prepare_header());
  for (ClusterIndex stop; first < end; first = stop) {
    stop = std::min(mapping_->end_of_slice(first), end);
    const GuestOffset begin = geometry_.start_of(first);
    const uint64_t length = std::min(geometry_.start_of(stop).value(), size()) - begin.value();
    // Version 2 cannot represent zeros: with a backing file, or to keep the allocation, writes
    // them.
    if (image_->header().version < 3 && (has_backing() || !unmap)) {
      ASSIGN_OR_RETURN(const bool zero, reads_as_zero(begin, length));
      if (!zero) RETURN_IF_ERROR(write_zeros(begin, length));
      continue;
    }
    const GuestLocks::Guard guard = guest_locks_.lock(first, stop);
    // Other programs may read a raw data file.
    if (has_data_file()) set_changed(begin, length);
    if (has_data_file()) RETURN_IF_ERROR(data_->write_zeroes(HostOffset(begin.value()), length));
    const auto lock = map_->lock_exclusive();
    if (!mapping_->has_table(first) && !has_backing()) continue;
    RETURN_IF_ERROR(mapping_->ensure_table(first));
    ASSIGN_OR_RETURN(const auto old, mapping_->entries(first, stop));
    for (uint64_t i = 0; i < old.size(); ++i) {
      if (old[i].word == 0 && old[i].bitmap == 0 && !has_backing()) continue;
      const bool keep = mapping_->owns_host(old[i]) && (!unmap || has_data_file());
      L2Entry entry;
      if (keep) entry.word = old[i].host().value() | kEntryCopied;
      if (extended())
        entry.bitmap = kAllZero;
      else if (image_->header().version >= 3)
        entry.word |= kEntryZero;
      if (entry.word == old[i].word && entry.bitmap == old[i].bitmap) continue;
      if (!is_zero_entry(old[i], extended()))
        set_changed(geometry_.start_of(first + i), geometry_.cluster_size());
      RETURN_IF_ERROR(mapping_->set_entry(first + i, entry));
      ++zeroed_;
      if (!keep) mapping_->unlink(old[i]);
    }
  }
  return {};
}

// Zeroes whole subclusters of one cluster.
Result<void> DiskWriter::zero_subclusters(GuestOffset at, uint64_t length, bool unmap) {
  RETURN_IF_ERROR(prepare_header());
  const ClusterIndex cluster = geometry_.cluster_of(at);
  const GuestLocks::Guard guard = guest_locks_.lock(cluster, cluster + 1);
  std::vector<L2Entry> old;
  {
    const auto lock = map_->lock_exclusive();
    if (mapping_->has_table(cluster) || has_backing()) {
      RETURN_IF_ERROR(mapping_->ensure_table(cluster));
      ASSIGN_OR_RETURN(old, mapping_->entries(cluster, cluster + 1));
      L2Entry entry = old.front();
      // A stream has no subclusters, and the bitmap of a shared cluster belongs to its owner's
      // table.
      if (!entry.compressed()) {
        const uint64_t unit = geometry_.subcluster_size();
        const uint64_t begin = at - geometry_.start_of(cluster);
        const uint64_t mask =
            subcluster_mask(static_cast<unsigned>(begin / unit),
                            static_cast<unsigned>(divide_up(begin + length, unit)));
        entry.bitmap = (entry.bitmap | (mask << 32)) & ~mask;
        // No data of the cluster is left.
        const bool gone = unmap && entry.bitmap == kAllZero && entry.host().value() != 0;
        if (gone) entry.word = 0;
        set_changed(at, length);
        RETURN_IF_ERROR(mapping_->set_entry(cluster, entry));
        ++zeroed_;
        if (gone) mapping_->unlink(old.front());
        return {};
      }
    } else {
      return {};
    }
  }
  return fail(Error::invalid("a compressed cluster has no subclusters"));
}

// Writes zeros to a part of a subcluster, unless it reads as zeros already.
Result<void> DiskWriter::write_where_not_zero(GuestOffset at, GuestOffset end) {
  if (at >= end) return {};
  ASSIGN_OR_RETURN(const bool zero, reads_as_zero(at, end - at));
  return zero ? Result<void>{} : write_zeros(at, end - at);
}

// Zeroes a part of one cluster.
Result<void> DiskWriter::zero_part(GuestOffset at, uint64_t length, bool unmap) {
  ASSIGN_OR_RETURN(const bool zero, reads_as_zero(at, length));
  if (zero) return {};
  if (extended() && !has_data_file()) {
    const uint64_t unit = geometry_.subcluster_size();
    const GuestOffset first(round_up(at.value(), unit));
    GuestOffset end = at + length;
    if (end.value() != size()) end = GuestOffset(round_down(end.value(), unit));
    bool compressed = false;
    {
      const auto lock = map_->lock_shared();
      const ClusterIndex cluster = geometry_.cluster_of(at);
      ASSIGN_OR_RETURN(const auto entry, mapping_->entries(cluster, cluster + 1));
      compressed = entry.front().compressed();
    }
    if (first < end && !compressed) {
      RETURN_IF_ERROR(write_where_not_zero(at, first));
      RETURN_IF_ERROR(zero_subclusters(first, end - first, unmap));
      return write_where_not_zero(end, at + length);
    }
  }
  return write_zeros(at, length);
}

Result<void> DiskWriter::zero(GuestOffset at, uint64_t length, bool unmap) {
  const Epochs::Ticket ticket(epochs_);
  const uint64_t cluster_size = geometry_.cluster_size();
  const GuestOffset end = at + length;
  while (at < end) {
    const ClusterIndex cluster = geometry_.cluster_of(at);
    const GuestOffset next = std::min(geometry_.start_of(cluster + 1), GuestOffset(size()));
    if (at == geometry_.start_of(cluster) && next <= end) {
      const ClusterIndex stop = end.value() == size() ? ClusterIndex(geometry_.clusters_for(size()))
                                                      : ClusterIndex(end.value() / cluster_size);
      RETURN_IF_ERROR(zero_clusters(cluster, stop, unmap));
      at = std::min(geometry_.start_of(stop), end);
    } else {
      const GuestOffset stop = std::min(next, end);
      RETURN_IF_ERROR(zero_part(at, stop - at, unmap));
      at = stop;
    }
  }
  return {};
}

Result<bool> DiskWriter::zero_is_slow(GuestOffset at, uint64_t length) const {
  ASSIGN_OR_RETURN(const bool zero, reads_as_zero(at, length));
  if (zero) return false;
  if (image_->header().version < 3) return true;
  // The partial clusters at both ends.
  const GuestOffset end = at + length;
  const uint64_t cluster_size = geometry_.cluster_size();
  const auto rounded_up = [](GuestOffset offset, uint64_t unit) {
    return GuestOffset(round_up(offset.value(), unit));
  };
  const GuestOffset first = std::min(rounded_up(at, cluster_size), end);
  const GuestOffset last =
      end.value() == size() ? end
                            : std::max(first, GuestOffset(round_down(end.value(), cluster_size)));
  ASSIGN_OR_RETURN(const bool head, part_is_slow(at, first));
  if (head) return true;
  return part_is_slow(last, end);
}

// The same for a part of one cluster: see zero_part ().
Result<bool> DiskWriter::part_is_slow(GuestOffset at, GuestOffset end) const {
  if (at >= end) return false;
  ASSIGN_OR_RETURN(const bool zero, reads_as_zero(at, end - at));
  if (zero) return false;
  if (!extended() || has_data_file()) return true;
  {
    const auto lock = map_->lock_shared();
    const ClusterIndex cluster = geometry_.cluster_of(at);
    ASSIGN_OR_RETURN(const auto entry, mapping_->entries(cluster, cluster + 1));
    if (entry.front().compressed()) return true;
  }
  const uint64_t unit = geometry_.subcluster_size();
  const GuestOffset first(std::min(round_up(at.value(), unit), end.value()));
  const GuestOffset last =
      end.value() == size() ? end : std::max(first, GuestOffset(round_down(end.value(), unit)));
  ASSIGN_OR_RETURN(const bool head, reads_as_zero(at, first - at));
  if (!head) return true;
  ASSIGN_OR_RETURN(const bool tail, reads_as_zero(last, end - last));
  return !tail;
}

}  // namespace vc::qcow2
