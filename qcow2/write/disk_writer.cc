#include "qcow2/write/disk_writer.h"

#include <fmt/format.h>

#include <algorithm>

#include "qcow2/read/qcow2_layer.h"
#include "qcow2/refcounts/recount.h"

namespace vc::qcow2 {

namespace {

constexpr uint64_t kAllZero = 0xffffffff00000000;
// Bytes to copy, or to write as zeros, at once.
constexpr uint64_t kPiece = 1 << 20;

// Returns the mask of subclusters [first, end).
constexpr uint64_t mask_of(unsigned first, unsigned end) {
  return (uint64_t{1} << end) - (uint64_t{1} << first);
}

// If an image's own tables are uncounted, the next allocation would overwrite them.
Result<void> check_counted(Refcounts& refcounts, const Geometry& geometry, const char* what,
                           HostOffset at, uint64_t length) {
  if (length == 0) return {};
  const uint64_t last = geometry.host_cluster_of(at + (length - 1)).value();
  for (uint64_t cluster = geometry.host_cluster_of(at).value(); cluster <= last; ++cluster) {
    ASSIGN_OR_RETURN(const uint64_t count, refcounts.get(HostCluster(cluster)));
    if (count == 0)
      return fail(Error::corrupt(
          fmt::format("the {} at {:#x} has no reference count: repair the image first "
                      "(qemu-img check -r all)",
                      what, geometry.start_of(HostCluster(cluster)).value())));
  }
  return {};
}

Result<void> check_tables_counted(Refcounts& refcounts, const Image& image, const ClusterMap& map) {
  const Header& header = image.header();
  const Geometry& geometry = image.geometry();
  const uint64_t cluster_size = geometry.cluster_size();
  RETURN_IF_ERROR(check_counted(refcounts, geometry, "header", HostOffset(0), cluster_size));
  RETURN_IF_ERROR(check_counted(refcounts, geometry, "L1 table", header.l1_table,
                                uint64_t{header.l1_entries} * 8));
  RETURN_IF_ERROR(check_counted(refcounts, geometry, "refcount table", header.refcount_table,
                                header.refcount_table_clusters * cluster_size));
  if (header.snapshot_count > 0)
    RETURN_IF_ERROR(check_counted(refcounts, geometry, "snapshot table", header.snapshot_table, 1));
  for (const Snapshot& snapshot : image.snapshots())
    RETURN_IF_ERROR(check_counted(refcounts, geometry, "L1 table of a snapshot", snapshot.l1_table,
                                  uint64_t{snapshot.l1_entries} * 8));
  for (const Refcounts::Run& run : refcounts.own_clusters())
    RETURN_IF_ERROR(check_counted(refcounts, geometry, "refcount block",
                                  geometry.start_of(run.first), run.count * cluster_size));
  for (uint64_t i = 0; i < map.l1_size(); ++i) {
    const uint64_t table = map.l1_entry(i) & kEntryOffsetMask;
    if (table == 0) continue;
    RETURN_IF_ERROR(
        check_counted(refcounts, geometry, "L2 table", HostOffset(table), cluster_size));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<DiskWriter>> DiskWriter::open(std::shared_ptr<Storage> storage,
                                                     Header header,
                                                     std::shared_ptr<Storage> data_file,
                                                     std::vector<std::shared_ptr<Layer>> backing,
                                                     std::shared_ptr<TableCache> cache,
                                                     const Options& options) {
  const auto in_image = [&](Error error) { return std::move(error).with_context(storage->name()); };
  if ((header.incompatible_features & incompatible::kCorrupt) != 0)
    return fail(in_image(Error::corrupt(
        "the image is marked corrupt: it can be read, and must be repaired before it is written")));
  auto data = data_file ? data_file : storage;
  if ((header.incompatible_features & incompatible::kDirty) != 0) {
    ASSIGN_OR_RETURN(const auto dirty,
                     Image::open(storage, header, data_file, std::make_shared<TableCache>(0)));
    RETURN_IF_ERROR(recount(storage, *dirty));
    header.incompatible_features &= ~incompatible::kDirty;
  }
  ASSIGN_OR_RETURN(auto image,
                   Image::open(storage, std::move(header), std::move(data_file), cache));
  std::unique_ptr<DiskWriter> writer(new DiskWriter(image, options));
  const Header& read = image->header();
  ASSIGN_OR_RETURN(writer->map_, ClusterMap::open(storage, std::move(cache), image->geometry(),
                                                  read.l1_table, read.l1_entries));
  RETURN_IF_ERROR(writer->map_->make_writable());
  auto refcounts = Refcounts::load(storage, read);
  if (!refcounts) return fail(in_image(std::move(refcounts).error()));
  writer->refcounts_ = std::move(*refcounts);
  if (auto counted = check_tables_counted(*writer->refcounts_, *image, *writer->map_); !counted)
    return fail(in_image(std::move(counted).error()));
  if (auto guarded = writer->guard_tables(); !guarded)
    return fail(in_image(std::move(guarded).error()));
  writer->l1_table_ = read.l1_table;
  writer->storage_ = std::move(storage);
  writer->data_ = std::move(data);
  std::vector<std::shared_ptr<Layer>> layers{
      std::make_shared<Qcow2Layer>(image, writer->map_, read.size)};
  layers.insert(layers.end(), backing.begin(), backing.end());
  writer->disk_ = std::make_unique<Disk>(std::move(layers));
  return writer;
}

Result<void> DiskWriter::guard_tables() {
  using Kind = OverlapCheck::Kind;
  const Header& header = image_->header();
  const auto add = [&](HostOffset at, uint64_t length, Kind kind) {
    if (length > 0)
      metadata_.add(geometry_.host_cluster_of(at), geometry_.clusters_for(length), kind);
  };
  add(HostOffset(0), 1, Kind::kHeader);
  add(header.l1_table, uint64_t{header.l1_entries} * 8, Kind::kL1Table);
  add(header.refcount_table, uint64_t{header.refcount_table_clusters} << header.cluster_bits,
      Kind::kRefcountTable);
  const HostCluster table = geometry_.host_cluster_of(header.refcount_table);
  for (const Refcounts::Run& run : refcounts_->own_clusters())
    for (uint64_t i = 0; i < run.count; ++i)
      if (run.first + i < table || table + header.refcount_table_clusters <= run.first + i)
        metadata_.add(run.first + i, 1, Kind::kRefcountBlock);
  if (header.snapshot_count > 0)
    add(header.snapshot_table, snapshot_table_bytes(image_->snapshots()), Kind::kSnapshotTable);
  for (const Snapshot& snapshot : image_->snapshots())
    add(snapshot.l1_table, uint64_t{snapshot.l1_entries} * 8, Kind::kSnapshotL1Table);
  for (uint64_t i = 0; i < map_->l1_size(); ++i)
    if (const HostOffset at(map_->l1_entry(i) & kEntryOffsetMask); at.value() != 0)
      add(at, 1, Kind::kL2Table);
  return metadata_.complete();
}

std::optional<OverlapCheck::Hit> DiskWriter::table_at(HostOffset host, uint64_t length) const {
  if (has_data_file()) return std::nullopt;
  const HostCluster first = geometry_.host_cluster_of(host);
  return metadata_.find(first, geometry_.host_cluster_of(host + (length - 1)) - first + 1);
}

Result<void> DiskWriter::refuse_table(GuestOffset at, const OverlapCheck::Hit& hit) {
  // The mark tells the next program that opens the image.
  (void)mark_corrupt();
  return fail(Error::corrupt(fmt::format(
      "{}: guest offset {:#x} lies on {}, at {:#x}: the image is damaged, and marked so",
      image_->name(), at.value(), to_string(hit.kind), geometry_.start_of(hit.cluster).value())));
}

ClusterIndex DiskWriter::end_of_slice(ClusterIndex cluster) const {
  const uint64_t entries = map_->slice_entries();
  return ClusterIndex((cluster.value() / entries + 1) * entries);
}

DiskWriter::Slot DiskWriter::slot_of(ClusterIndex cluster) const {
  const uint64_t l1 = map_->l1_entry(geometry_.l1_index(cluster));
  const uint64_t entries = map_->slice_entries();
  const uint64_t index = geometry_.l2_index(cluster);
  const HostOffset table(l1 & kEntryOffsetMask);
  return {table + index / entries * map_->slice_size(), index % entries, table.value() != 0,
          (l1 & kEntryCopied) != 0};
}

Result<std::vector<L2Entry>> DiskWriter::entries(ClusterIndex first, ClusterIndex end) const {
  std::vector<L2Entry> entries(end - first);
  const Slot slot = slot_of(first);
  if (!slot.exists) return entries;
  if (geometry_.offset_in_cluster(slot.slice.value()) % map_->slice_size() != 0)
    return fail(Error::corrupt(fmt::format("{}: the L2 table at {:#x} does not begin at a cluster",
                                           image_->name(), slot.slice.value())));
  ASSIGN_OR_RETURN(const auto slice, map_->slice_at(slot.slice));
  for (uint64_t i = 0; i < entries.size(); ++i)
    entries[i] = load_l2_entry(*slice, slot.index + i, extended());
  return entries;
}

bool DiskWriter::owns_host(L2Entry entry) const {
  return entry.copied() && !entry.compressed() && (entry.host().value() != 0 || has_data_file());
}

bool DiskWriter::in_place(L2Entry entry, unsigned subcluster) const {
  if (!owns_host(entry)) return false;
  return extended() ? ((entry.allocated_mask() >> subcluster) & 1) != 0 : !entry.zero_flag();
}

bool DiskWriter::has_data(L2Entry entry) const {
  if (entry.compressed()) return true;
  if (entry.host().value() == 0 && !(has_data_file() && entry.copied())) return false;
  return extended() ? entry.allocated_mask() != 0 : !entry.zero_flag();
}

// Returns the number of bytes from `at` that can be written in place, and their offset in `host`; 0
// if none.
Result<uint64_t> DiskWriter::find_in_place(GuestOffset at, uint64_t limit, HostOffset& host) const {
  const ClusterIndex first = geometry_.cluster_of(at);
  const Slot slot = slot_of(first);
  if (!slot.exists || !slot.owned) return uint64_t{0};
  const ClusterIndex end =
      std::min(end_of_slice(first), ClusterIndex(geometry_.clusters_for(at.value() + limit)));
  ASSIGN_OR_RETURN(const auto found, entries(first, end));
  const uint64_t unit = geometry_.subcluster_size();
  GuestOffset position = at;
  const GuestOffset stop = at + limit;
  for (uint64_t i = 0; i < found.size() && position < stop; ++i) {
    const GuestOffset start = geometry_.start_of(first + i);
    const HostOffset here = found[i].host() + (position - start);
    if (i == 0) host = here;
    while (position < stop && position - start < geometry_.cluster_size()) {
      const auto subcluster = static_cast<unsigned>((position - start) / unit);
      if (!in_place(found[i], subcluster) ||
          found[i].host() + (position - start) != host + (position - at))
        return position - at;
      position = start + uint64_t{subcluster + 1} * unit;
    }
  }
  return std::min(position, stop) - at;
}

// Ensures that the L2 table of `cluster` exists and is not shared.
Result<void> DiskWriter::ensure_table(ClusterIndex cluster) {
  const uint64_t l1_index = geometry_.l1_index(cluster);
  const uint64_t l1 = map_->l1_entry(l1_index);
  if ((l1 & kEntryOffsetMask) != 0 && (l1 & kEntryCopied) != 0) return {};
  ASSIGN_OR_RETURN(const Refcounts::Run run, refcounts_->allocate(1));
  ++allocated_;
  return place_table(l1_index, run.first);
}

// Copies the table of an L1 entry (or an empty one, if there is none) to `to`, which is allocated
// for it.
Result<void> DiskWriter::place_table(uint64_t l1_index, HostCluster to) {
  const HostOffset old(map_->l1_entry(l1_index) & kEntryOffsetMask);
  std::vector<std::byte> contents(geometry_.cluster_size());
  if (old.value() != 0) {
    for (uint64_t at = 0; at < contents.size(); at += map_->slice_size()) {
      const auto slice = map_->slice_at(old + at);
      if (!slice) {
        std::vector<Refcounts::Run> freed;
        RETURN_IF_ERROR(refcounts_->release(to, 1, freed));
        return fail(slice.error());
      }
      std::copy((*slice)->begin(), (*slice)->end(), contents.begin() + static_cast<ptrdiff_t>(at));
    }
  }
  map_->add_table(l1_index, geometry_.start_of(to), std::move(contents));
  metadata_.insert(to, OverlapCheck::Kind::kL2Table);
  if (old.value() != 0) metadata_.erase(geometry_.host_cluster_of(old), 1);
  if (old.value() != 0) unlinked_.push_back({geometry_.host_cluster_of(old), 1});
  return {};
}

Result<void> DiskWriter::set_entry(ClusterIndex cluster, L2Entry entry) {
  const Slot slot = slot_of(cluster);
  ASSIGN_OR_RETURN(ClusterMap::Slice * slice, map_->change_slice(slot.slice));
  store_l2_entry(*slice, slot.index, extended(), entry);
  return {};
}

// Removes a reference from the entry's clusters once the change is committed; tables keep theirs.
void DiskWriter::unlink(L2Entry entry) {
  if (entry.compressed()) {
    const auto descriptor = CompressedDescriptor::decode(entry.word, geometry_.cluster_bits());
    const HostCluster first = geometry_.host_cluster_of(descriptor.offset);
    const HostCluster last =
        geometry_.host_cluster_of(descriptor.offset + (descriptor.readable_bytes() - 1));
    for (HostCluster cluster = first; cluster <= last; cluster += 1)
      if (!metadata_.find(cluster, 1)) unlinked_.push_back({cluster, 1});
  } else if (entry.host().value() != 0 && !has_data_file()) {
    const HostCluster cluster = geometry_.host_cluster_of(entry.host());
    if (!metadata_.find(cluster, 1)) unlinked_.push_back({cluster, 1});
  }
}

Result<void> DiskWriter::read(GuestOffset at, std::span<std::byte> to) const {
  const Epochs::Ticket ticket(epochs_);
  return disk_->read(at, to);
}

Result<void> DiskWriter::map(GuestOffset at, uint64_t length, std::vector<Extent>& out,
                             size_t max_extents) const {
  return disk_->map(at, length, out, max_extents);
}

Result<bool> DiskWriter::reads_as_zero(GuestOffset at, uint64_t length) const {
  std::vector<Extent> extents;
  while (length > 0) {
    extents.clear();
    RETURN_IF_ERROR(disk_->map(at, length, extents, 64));
    for (const Extent& extent : extents)
      if (!extent.reads_as_zero()) return false;
    length -= extents.back().end() - at;
    at = extents.back().end();
  }
  return true;
}

Result<void> DiskWriter::copy_old(GuestOffset begin, GuestOffset end, HostOffset host, bool fresh) {
  if (begin >= end) return {};
  // There is nothing to copy past the end of the disk, but old content there must not become
  // visible if the disk is extended.
  const GuestOffset disk_end(size());
  const GuestOffset stop = std::min(end, disk_end);
  if (begin < stop) {
    ASSIGN_OR_RETURN(const bool zero, reads_as_zero(begin, stop - begin));
    if (!zero) {
      std::vector<std::byte> buffer(std::min<uint64_t>(stop - begin, kPiece));
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
  if (owns_host(old.front())) return Place{old.front().host(), 1, false, false};
  uint64_t wanted = 1;
  while (wanted < old.size() && !owns_host(old[wanted])) ++wanted;
  ASSIGN_OR_RETURN(const Refcounts::Run run, refcounts_->allocate(wanted));
  allocated_ += run.count;
  return Place{geometry_.start_of(run.first), run.count, true, run.fresh};
}

// Returns the start of the next subcluster with its own data, from `at` on, in the cluster at
// `begin`.
GuestOffset DiskWriter::end_of_hole(GuestOffset begin, L2Entry entry, GuestOffset at) const {
  const uint64_t unit = geometry_.subcluster_size();
  auto subcluster = static_cast<unsigned>((at - begin) / unit);
  while (subcluster < Geometry::kSubclusters && !in_place(entry, subcluster)) ++subcluster;
  return begin + subcluster * unit;
}

// Writes as much from `at` on as gets a new mapping in one piece, and returns the number of bytes;
// 0 if another request has mapped the cluster meanwhile.
Result<uint64_t> DiskWriter::write_allocating(GuestOffset at, std::span<const std::byte> from) {
  const ClusterIndex first = geometry_.cluster_of(at);
  const ClusterIndex end =
      std::min(end_of_slice(first), ClusterIndex(geometry_.clusters_for(at.value() + from.size())));
  RETURN_IF_ERROR(prepare_header());
  const GuestLocks::Guard guard = guest_locks_.lock(first, end);

  std::vector<L2Entry> old;
  {
    const auto lock = map_->lock_exclusive();
    HostOffset host;
    ASSIGN_OR_RETURN(const uint64_t there, find_in_place(at, 1, host));
    if (there > 0) return uint64_t{0};
    RETURN_IF_ERROR(ensure_table(first));
    ASSIGN_OR_RETURN(old, entries(first, end));
  }
  // Stops at the first cluster (or, in the first cluster, subcluster) that can be written in place:
  // another request may do so now, without a lock.
  const auto stays = [&](L2Entry entry) {
    return extended() ? owns_host(entry) && entry.allocated_mask() != 0 : in_place(entry, 0);
  };
  old.erase(std::find_if(old.begin() + 1, old.end(), stays), old.end());

  ASSIGN_OR_RETURN(const Place place, find_place(first, old));
  if (!place.allocated) {
    std::optional<OverlapCheck::Hit> hit;
    {
      const auto lock = map_->lock_shared();
      hit = table_at(place.host, place.clusters * geometry_.cluster_size());
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
  const auto moves = [&](L2Entry entry) { return place.allocated && has_data(entry); };
  const GuestOffset copy_begin = moves(old.front()) ? begin : GuestOffset(at.value() / unit * unit);
  const GuestOffset copy_end =
      moves(old.back()) ? placed_end : GuestOffset((write_end.value() + unit - 1) / unit * unit);
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
      const uint64_t mask = mask_of(first_sub, end_sub);
      entry.bitmap = moves(old[i]) ? 0 : old[i].bitmap;
      entry.bitmap = (entry.bitmap | mask) & ~(mask << 32);
    }
    written = set_entry(first + i, entry);
    if (written && place.allocated) unlink(old[i]);
  }
  if (written) return write_end - at;
  // No entry refers to the new clusters: frees them at once.  Discards their content, which on a
  // full filesystem would leave no space for the tables that a discard needs.
  if (place.allocated) {
    storage_->discard(place.host, place.clusters << geometry_.cluster_bits());
    std::vector<Refcounts::Run> freed;
    RETURN_IF_ERROR(
        refcounts_->release(geometry_.host_cluster_of(place.host), place.clusters, freed));
  }
  return fail(std::move(written).error());
}

Result<void> DiskWriter::write_range(GuestOffset at, std::span<const std::byte> from) {
  while (!from.empty()) {
    HostOffset host;
    uint64_t done = 0;
    std::optional<OverlapCheck::Hit> hit;
    {
      const auto lock = map_->lock_shared();
      ASSIGN_OR_RETURN(done, find_in_place(at, from.size(), host));
      if (done > 0) hit = table_at(host, done);
    }
    if (hit) return refuse_table(at, *hit);
    if (done > 0) {
      RETURN_IF_ERROR(prepare_header());
      RETURN_IF_ERROR(data_->write(host, from.first(done)));
    } else {
      ASSIGN_OR_RETURN(done, write_allocating(at, from));
    }
    at += done;
    from = from.subspan(done);
  }
  return {};
}

Result<void> DiskWriter::write(GuestOffset at, std::span<const std::byte> from) {
  {
    const Epochs::Ticket ticket(epochs_);
    RETURN_IF_ERROR(write_range(at, from));
  }
  bool many = false;
  {
    const auto lock = map_->lock_shared();
    many = map_->changed_bytes() > options_.changes_limit;
  }
  return many ? commit(false) : Result<void>{};
}

Result<void> DiskWriter::write_zeros(GuestOffset at, uint64_t length) {
  const std::vector<std::byte> zeros(std::min(length, kPiece));
  for (uint64_t done = 0; done < length; done += kPiece)
    RETURN_IF_ERROR(
        write_range(at + done, std::span(zeros).first(std::min(length - done, kPiece))));
  return {};
}

Result<void> DiskWriter::zero_clusters(ClusterIndex first, ClusterIndex end, bool unmap) {
  RETURN_IF_ERROR(prepare_header());
  for (ClusterIndex stop; first < end; first = stop) {
    stop = std::min(end_of_slice(first), end);
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
    if (has_data_file()) RETURN_IF_ERROR(data_->write_zeroes(HostOffset(begin.value()), length));
    const auto lock = map_->lock_exclusive();
    if (!slot_of(first).exists && !has_backing()) continue;
    RETURN_IF_ERROR(ensure_table(first));
    ASSIGN_OR_RETURN(const auto old, entries(first, stop));
    for (uint64_t i = 0; i < old.size(); ++i) {
      if (old[i].word == 0 && old[i].bitmap == 0 && !has_backing()) continue;
      const bool keep = owns_host(old[i]) && (!unmap || has_data_file());
      L2Entry entry;
      if (keep) entry.word = old[i].host().value() | kEntryCopied;
      if (extended())
        entry.bitmap = kAllZero;
      else if (image_->header().version >= 3)
        entry.word |= kEntryZero;
      if (entry.word == old[i].word && entry.bitmap == old[i].bitmap) continue;
      RETURN_IF_ERROR(set_entry(first + i, entry));
      ++zeroed_;
      if (!keep) unlink(old[i]);
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
    if (slot_of(cluster).exists || has_backing()) {
      RETURN_IF_ERROR(ensure_table(cluster));
      ASSIGN_OR_RETURN(old, entries(cluster, cluster + 1));
      L2Entry entry = old.front();
      // A stream has no subclusters, and the bitmap of a shared cluster belongs to its owner's
      // table.
      if (!entry.compressed()) {
        const uint64_t unit = geometry_.subcluster_size();
        const uint64_t begin = at - geometry_.start_of(cluster);
        const uint64_t mask = mask_of(static_cast<unsigned>(begin / unit),
                                      static_cast<unsigned>((begin + length + unit - 1) / unit));
        entry.bitmap = (entry.bitmap | (mask << 32)) & ~mask;
        // No data of the cluster is left.
        const bool gone = unmap && entry.bitmap == kAllZero && entry.host().value() != 0;
        if (gone) entry.word = 0;
        RETURN_IF_ERROR(set_entry(cluster, entry));
        ++zeroed_;
        if (gone) unlink(old.front());
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
    const GuestOffset first((at.value() + unit - 1) / unit * unit);
    GuestOffset end = at + length;
    if (end.value() != size()) end = GuestOffset(end.value() / unit * unit);
    bool compressed = false;
    {
      const auto lock = map_->lock_shared();
      const ClusterIndex cluster = geometry_.cluster_of(at);
      ASSIGN_OR_RETURN(const auto entry, entries(cluster, cluster + 1));
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
    return GuestOffset((offset.value() + unit - 1) / unit * unit);
  };
  const GuestOffset first = std::min(rounded_up(at, cluster_size), end);
  const GuestOffset last =
      end.value() == size()
          ? end
          : std::max(first, GuestOffset(end.value() / cluster_size * cluster_size));
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
    ASSIGN_OR_RETURN(const auto entry, entries(cluster, cluster + 1));
    if (entry.front().compressed()) return true;
  }
  const uint64_t unit = geometry_.subcluster_size();
  const GuestOffset first(std::min((at.value() + unit - 1) / unit * unit, end.value()));
  const GuestOffset last =
      end.value() == size() ? end : std::max(first, GuestOffset(end.value() / unit * unit));
  ASSIGN_OR_RETURN(const bool head, reads_as_zero(at, first - at));
  if (!head) return true;
  ASSIGN_OR_RETURN(const bool tail, reads_as_zero(last, end - last));
  return !tail;
}

Result<void> DiskWriter::discard(GuestOffset at, uint64_t length) {
  // In version 2 a hole would expose the backing file: old data of the guest.
  if (image_->header().version < 3 && has_backing()) return {};
  const Epochs::Ticket ticket(epochs_);
  const uint64_t cluster_size = geometry_.cluster_size();
  const GuestOffset end = at + length;
  const ClusterIndex first(geometry_.clusters_for(at.value()));
  const ClusterIndex stop = end.value() == size() ? ClusterIndex(geometry_.clusters_for(size()))
                                                  : ClusterIndex(end.value() / cluster_size);
  if (extended() && !has_data_file()) {
    const GuestOffset whole = std::min(geometry_.start_of(first), end);
    RETURN_IF_ERROR(discard_part(at, whole));
    if (first <= stop)
      RETURN_IF_ERROR(discard_part(std::max(geometry_.start_of(stop), whole), end));
  }
  return first < stop ? zero_clusters(first, stop, true) : Result<void>{};
}

// Discards the whole subclusters in a part of a cluster.
Result<void> DiskWriter::discard_part(GuestOffset at, GuestOffset end) {
  const uint64_t unit = geometry_.subcluster_size();
  const GuestOffset first((at.value() + unit - 1) / unit * unit);
  if (end.value() != size()) end = GuestOffset(end.value() / unit * unit);
  if (first >= end) return {};
  ASSIGN_OR_RETURN(const bool zero, reads_as_zero(first, end - first));
  if (zero) return {};
  {
    const auto lock = map_->lock_shared();
    const ClusterIndex cluster = geometry_.cluster_of(first);
    ASSIGN_OR_RETURN(const auto entry, entries(cluster, cluster + 1));
    if (entry.front().compressed()) return {};
  }
  return zero_subclusters(first, end - first, true);
}

DiskWriter::Statistics DiskWriter::statistics() const {
  return {allocated_, zeroed_, freed_, cut_off_};
}

}  // namespace vc::qcow2
