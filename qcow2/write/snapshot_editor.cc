#include "qcow2/write/snapshot_editor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

#include "base/byte_order.h"
#include "base/took_effect.h"
#include "qcow2/bitmaps/bitmap_bits.h"
#include "qcow2/format/header_fields.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/snapshot_fields.h"
#include "qcow2/refcounts/in_place_rebuild.h"
#include "qcow2/refcounts/refcount_writer.h"
#include "qcow2/write/bitmap_rewrite.h"
#include "qcow2/write/chain_writer.h"

namespace vc::qcow2 {

namespace {

constexpr uint64_t kCacheSize = 1 << 20;  // bytes
constexpr size_t kLongestName = 255;      // bytes: the part of a name that QEMU shows
// Number of passes over the L2 tables, for progress reports.
constexpr unsigned kPassesOfCreate = 4;
constexpr unsigned kPassesOfRemove = 3;
constexpr unsigned kPassesOfApply = 5;

uint64_t max_count(const Header& header) {
  return header.refcount_order >= 6 ? UINT64_MAX : (uint64_t{1} << header.refcount_bits()) - 1;
}

// Returns one more than the highest number used as an ID.
std::string next_id(const std::vector<Snapshot>& snapshots) {
  uint64_t highest = 0;
  for (const Snapshot& it : snapshots) {
    uint64_t number = 0;
    std::from_chars(it.id.data(), it.id.data() + it.id.size(), number);
    if (number < UINT64_MAX) highest = std::max(highest, number);
  }
  return std::to_string(highest + 1);
}

}  // namespace

Result<std::unique_ptr<SnapshotEditor>> SnapshotEditor::open(const Chain& chain) {
  // The writer takes the locks, repairs an image that is marked dirty, and rejects read-only
  // images.
  ASSIGN_OR_RETURN(const auto writer, open_writer(chain, {}));
  RETURN_IF_ERROR(writer->close());
  return open(chain.storage(), chain.image()->encryption());
}

Result<std::unique_ptr<SnapshotEditor>> SnapshotEditor::open(
    std::shared_ptr<Storage> storage, std::shared_ptr<const Encryption> encryption) {
  std::unique_ptr<SnapshotEditor> it(new SnapshotEditor(std::move(storage)));
  it->encryption_ = std::move(encryption);
  RETURN_IF_ERROR(it->reload());
  const Header& header = it->image_->header();
  if (header.has_data_file())
    return fail(Error::unsupported(it->image_->name() +
                                   ": has an external data file, which cannot hold snapshots"));
  if ((header.incompatible_features & incompatible::kCorrupt) != 0)
    return fail(Error::corrupt(it->image_->name() +
                               ": is marked corrupt: repair it with virt-compact check -r all"));
  if ((header.incompatible_features & incompatible::kDirty) != 0) {
    RETURN_IF_ERROR(rebuild_in_place(it->storage_, *it->image_));
    RETURN_IF_ERROR(it->reload());
  }
  ASSIGN_OR_RETURN(const HostCluster end, it->refcounts_->end_of_use());
  ASSIGN_OR_RETURN(it->used_before_, it->refcounts_->count_used(end));
  return it;
}

void SnapshotEditor::begin(unsigned passes) {
  if (!progress_) return;
  table_done_ = [this, passes, done = uint64_t{0}, total = uint64_t{0}](uint64_t tables) mutable {
    total = std::max({total, tables * passes, ++done});
    progress_(done << image_->geometry().cluster_bits(),
              total << image_->geometry().cluster_bits());
  };
}

Result<void> SnapshotEditor::reload() {
  ASSIGN_OR_RETURN(Header header, Header::read(*storage_, Header::Purpose::kUnlock));
  ASSIGN_OR_RETURN(refcounts_, Refcounts::load(storage_, header));
  ASSIGN_OR_RETURN(image_, Image::open(storage_, std::move(header), nullptr,
                                       std::make_shared<TableCache>(kCacheSize), encryption_));
  return {};
}

Result<const Snapshot*> SnapshotEditor::find(std::string_view id_or_name) const {
  const Snapshot* const found = find_snapshot(snapshots(), id_or_name);
  if (!found)
    return fail(
        Error::invalid(fmt::format("{}: there is no snapshot '{}'", image_->name(), id_or_name)));
  return found;
}

Result<void> SnapshotEditor::mark_dirty(bool dirty) {
  const Header& header = image_->header();
  if (header.version < 3) return {};
  // The data of unknown autoclear bits may become stale.
  RETURN_IF_ERROR(write_feature_fields(
      *storage_, header.incompatible_features | (dirty ? incompatible::kDirty : 0),
      header.compatible_features,
      header.autoclear_features & (autoclear::kBitmaps | autoclear::kDataFileRaw)));
  return storage_->flush();
}

// Detects too narrow refcounts before any change.  For clusters with several references (compressed
// ones share theirs) only the actual counting may detect it.
Result<void> SnapshotEditor::check_width(const References& references) const {
  const uint64_t most = max_count(image_->header());
  Result<void> result;
  const auto look = [&](HostCluster cluster, uint64_t times) -> Result<void> {
    ASSIGN_OR_RETURN(const uint64_t now, refcounts_->get(cluster));
    if (times <= most && now <= most - times) return {};
    const unsigned bits = image_->header().refcount_bits();
    return fail(Error::unsupported(
        fmt::format("{}: the cluster at {:#x} has {} reference{}, and its refcount of {} bit{} "
                    "cannot hold one more: copy the disk with -o refcount_bits=16",
                    image_->name(), image_->geometry().start_of(cluster).value(), now,
                    now == 1 ? "" : "s", bits, bits == 1 ? "" : "s")));
  };
  const References::Visit visit = [&](HostCluster first, uint64_t count, uint64_t times) {
    for (uint64_t i = 0; i < count && result; ++i) result = look(first + i, times);
  };
  RETURN_IF_ERROR(references.visit(visit, table_done_));
  return result;
}

Result<void> SnapshotEditor::raise_run(HostCluster first, uint64_t count, uint64_t times) {
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const uint64_t now, refcounts_->get(first + i));
    RETURN_IF_ERROR(refcounts_->assign(first + i, now + times));
  }
  // Higher refcounts may be written at any time.
  if (!refcounts_->changes_are_due()) return {};
  return write_refcounts(*storage_, *refcounts_);
}

Result<void> SnapshotEditor::raise(const References& references) {
  Result<void> raised;
  const References::Visit visit = [&](HostCluster first, uint64_t count, uint64_t times) {
    if (raised) raised = raise_run(first, count, times);
  };
  RETURN_IF_ERROR(references.visit(visit, table_done_));
  RETURN_IF_ERROR(raised);
  return write_refcounts(*storage_, *refcounts_);
}

// Clears COPIED in the active tables, since the snapshot now shares all clusters.
Result<void> SnapshotEditor::clear_copied() {
  const Header& header = image_->header();
  const Geometry& geometry = image_->geometry();
  ASSIGN_OR_RETURN(const References active,
                   References::find_disk(*image_, header.l1_table, header.l1_entries));
  std::vector<std::byte> table(geometry.cluster_size());
  const uint64_t step = geometry.l2_entry_size();
  for (const References::Table& it : active.active_tables()) {
    const HostOffset at(it.l1_entry & kEntryOffsetMask);
    RETURN_IF_ERROR(read_fully(*storage_, at, table));
    bool changed = false;
    for (uint64_t i = 0; i < table.size(); i += step) {
      const uint64_t entry = load_be64(&table[i]);
      // Compressed entries never have the bit.
      if ((entry & kEntryCopied) == 0) continue;
      store_be64(&table[i], entry & ~kEntryCopied);
      changed = true;
    }
    if (changed) RETURN_IF_ERROR(storage_->write(at, table));
    if (table_done_) table_done_(active.active_tables().size());
    if ((it.l1_entry & kEntryCopied) == 0) continue;
    std::array<std::byte, 8> entry{};
    store_be64(entry.data(), it.l1_entry & ~kEntryCopied);
    RETURN_IF_ERROR(storage_->write(header.l1_table + it.l1_index * 8, entry));
  }
  return storage_->flush();
}

// Writes `bytes` to new clusters, whose refcounts are set, and flushes them.
Result<HostOffset> SnapshotEditor::write_table(const std::vector<std::byte>& bytes) {
  if (bytes.empty()) return HostOffset(0);
  const Geometry& geometry = image_->geometry();
  ASSIGN_OR_RETURN(const Refcounts::Run run,
                   refcounts_->allocate_table(geometry.clusters_for(bytes.size())));
  const HostOffset at = geometry.start_of(run.first);
  std::vector<std::byte> whole = bytes;
  whole.resize(run.count << geometry.cluster_bits());
  RETURN_IF_ERROR(storage_->write(at, whole));
  RETURN_IF_ERROR(storage_->flush());
  RETURN_IF_ERROR(write_refcounts(*storage_, *refcounts_));
  return at;
}

Result<std::vector<std::byte>> SnapshotEditor::l1_without_copied(HostOffset at,
                                                                 uint64_t entries) const {
  std::vector<std::byte> bytes(entries * 8);
  RETURN_IF_ERROR(with_context(read_fully(*storage_, at, bytes), "L1 table"));
  for (uint64_t i = 0; i < bytes.size(); i += 8)
    store_be64(&bytes[i], load_be64(&bytes[i]) & ~kEntryCopied);
  return bytes;
}

// Replaces the snapshot table of the image by `snapshots`.
Result<void> SnapshotEditor::put_snapshots(const std::vector<Snapshot>& snapshots) {
  ASSIGN_OR_RETURN(const HostOffset table,
                   write_table(encode_snapshot_table(snapshots, image_->header().version)));
  RETURN_IF_ERROR(write_snapshot_fields(*storage_, static_cast<uint32_t>(snapshots.size()), table));
  return storage_->flush();
}

// Frees a table that the header no longer points to.
Result<void> SnapshotEditor::drop_table(HostOffset at, uint64_t bytes) {
  if (bytes == 0) return {};
  const Geometry& geometry = image_->geometry();
  std::vector<ClusterRun> freed;
  RETURN_IF_ERROR(
      refcounts_->release(geometry.host_cluster_of(at), geometry.clusters_for(bytes), freed));
  return write_refcounts(*storage_, *refcounts_);
}

// Updates refcounts and COPIED to match the current tables.
Result<void> SnapshotEditor::rebuild_counts() {
  RETURN_IF_ERROR(reload());
  RETURN_IF_ERROR(rebuild_in_place(storage_, *image_, table_done_));
  return reload();
}

// Undoes the refcounts of a failed operation. If that fails, too, the image is as consistent as
// after a crash. If the header shows that the operation took effect anyway, the error says `state`.
Result<void> SnapshotEditor::undo(Result<void> result, const std::function<bool()>& happened,
                                  const std::string& state) {
  if (result) return result;
  (void)rebuild_counts();
  if (reload() && happened())
    return took_effect(std::move(result), fmt::format("{}: {}", image_->name(), state));
  return result;
}

Result<void> SnapshotEditor::create_as(Snapshot snapshot) {
  const Header header = image_->header();
  ASSIGN_OR_RETURN(const References active,
                   References::find_disk(*image_, header.l1_table, header.l1_entries));
  RETURN_IF_ERROR(mark_dirty(true));
  RETURN_IF_ERROR(raise(active));
  RETURN_IF_ERROR(clear_copied());
  ASSIGN_OR_RETURN(const auto l1, l1_without_copied(header.l1_table, header.l1_entries));
  ASSIGN_OR_RETURN(snapshot.l1_table, write_table(l1));
  auto all = snapshots();
  all.push_back(std::move(snapshot));
  const uint64_t old_bytes = snapshot_table_bytes(snapshots());
  RETURN_IF_ERROR(put_snapshots(all));
  RETURN_IF_ERROR(drop_table(header.snapshot_table, old_bytes));
  RETURN_IF_ERROR(mark_dirty(false));
  return reload();
}

Result<std::string> SnapshotEditor::create(const std::string& name, Time now) {
  if (name.empty()) return fail(Error::invalid("a snapshot needs a name"));
  if (name.size() > kLongestName)
    return fail(Error::invalid(fmt::format("the name of a snapshot has {} bytes at most, not {}",
                                           kLongestName, name.size())));
  const Header& header = image_->header();
  if (snapshots().size() >= Limits::kSnapshots)
    return fail(Error::unsupported(fmt::format("{}: has {} snapshots, and cannot have more",
                                               image_->name(), snapshots().size())));
  Snapshot snapshot;
  snapshot.l1_entries = header.l1_entries;
  snapshot.id = next_id(snapshots());
  snapshot.name = name;
  snapshot.date_seconds = now.seconds;
  snapshot.date_nanoseconds = now.nanoseconds;
  snapshot.disk_size = header.size;
  snapshot.extra_bytes = snapshot_field::kWithInstructionCount;
  std::string id = snapshot.id;

  begin(kPassesOfCreate);
  // The whole image must be consistent before it is changed.
  RETURN_IF_ERROR(check_counts(storage_, *image_, table_done_));
  ASSIGN_OR_RETURN(const References active,
                   References::find_disk(*image_, header.l1_table, header.l1_entries));
  RETURN_IF_ERROR(check_width(active));
  RETURN_IF_ERROR(undo(
      create_as(std::move(snapshot)),
      [&] {
        return std::any_of(snapshots().begin(), snapshots().end(),
                           [&](const Snapshot& it) { return it.id == id; });
      },
      fmt::format("snapshot '{}' was created, with the id {}", name, id)));
  return id;
}

Result<void> SnapshotEditor::remove(std::string_view id_or_name) {
  // Deletion is irreversible: looks up the same snapshot as qemu-img.
  const Snapshot* found = find_snapshot_by_name(snapshots(), id_or_name);
  if (!found) {
    ASSIGN_OR_RETURN(found, find(id_or_name));
  }
  auto rest = snapshots();
  rest.erase(rest.begin() + (found - snapshots().data()));
  begin(kPassesOfRemove);
  RETURN_IF_ERROR(check_counts(storage_, *image_, table_done_));
  const auto removed = [&]() -> Result<void> {
    RETURN_IF_ERROR(mark_dirty(true));
    RETURN_IF_ERROR(put_snapshots(rest));
    return rebuild_counts();
  };
  return undo(
      removed(), [&] { return snapshots().size() == rest.size(); },
      fmt::format("snapshot '{}' was deleted", id_or_name));
}

Result<void> SnapshotEditor::apply_as(const Snapshot& snapshot) {
  const Header header = image_->header();
  const uint64_t needed = std::max<uint64_t>(image_->geometry().l1_entries_for(snapshot.disk_size),
                                             snapshot.l1_entries);
  if (needed * 8 > Limits::kL1Bytes)
    return fail(Error::corrupt(fmt::format("{}: snapshot '{}': its disk of {} bytes is too large",
                                           image_->name(), snapshot.name, snapshot.disk_size)));
  ASSIGN_OR_RETURN(auto l1, l1_without_copied(snapshot.l1_table, snapshot.l1_entries));
  l1.resize(needed * 8);
  ASSIGN_OR_RETURN(const References kept,
                   References::find_disk(*image_, snapshot.l1_table, snapshot.l1_entries));
  RETURN_IF_ERROR(check_width(kept));
  ASSIGN_OR_RETURN(const BitmapDirectory bitmaps, read_bitmap_directory(*storage_, header));
  RETURN_IF_ERROR(mark_dirty(true));
  RETURN_IF_ERROR(raise(kept));
  ASSIGN_OR_RETURN(const HostOffset table, write_table(l1));
  RETURN_IF_ERROR(mark_bitmaps_in_use(*storage_, bitmaps, snapshot.disk_size != header.size));
  // Writes size, encryption method, L1 entries and L1 table at once.
  std::array<std::byte, header_field::kDiskFields> fields{};
  store_be64(fields.data(), snapshot.disk_size);
  store_be32(fields.data() + 8, static_cast<uint32_t>(header.crypt_method));
  store_be32(fields.data() + 12, static_cast<uint32_t>(needed));
  store_be64(fields.data() + 16, table.value());
  RETURN_IF_ERROR(storage_->write(HostOffset(header_field::kSize), fields));
  RETURN_IF_ERROR(storage_->flush());
  const auto stored = store_bitmaps(bitmaps, snapshot.disk_size);
  RETURN_IF_ERROR(rebuild_counts());
  return with_context(stored, "its dirty bitmaps are lost: they stay marked in use");
}

// Sets all bits of the enabled bitmaps, and gives all bitmaps the new size of the disk.  The caller
// then rebuilds the refcounts, which frees the old clusters.
Result<void> SnapshotEditor::store_bitmaps(const BitmapDirectory& directory, uint64_t disk_size) {
  if (directory.size == 0) return {};
  BitmapRewrite rewrite(storage_, image_->geometry(), directory, *refcounts_);
  RETURN_IF_ERROR(rewrite.begin());
  for (size_t i = 0; i < directory.bitmaps.size(); ++i) {
    const Bitmap& bitmap = directory.bitmaps[i];
    if (bitmap.usable() && (bitmap.enabled() || disk_size != image_->header().size))
      RETURN_IF_ERROR(rewrite.add(i, disk_size, [&](std::span<std::byte> bits, uint64_t) {
        if (bitmap.enabled()) set_bits(bits, 0, bits.size() * 8);
      }));
  }
  RETURN_IF_ERROR(rewrite.write_directory());
  RETURN_IF_ERROR(write_refcounts(*storage_, *refcounts_));
  return rewrite.switch_over();
}

Result<void> SnapshotEditor::apply(std::string_view id_or_name) {
  ASSIGN_OR_RETURN(const Snapshot* const found, find(id_or_name));
  const Snapshot snapshot = *found;
  begin(kPassesOfApply);
  RETURN_IF_ERROR(check_counts(storage_, *image_, table_done_));
  const HostOffset before = image_->header().l1_table;
  return undo(
      apply_as(snapshot), [&] { return image_->header().l1_table != before; },
      fmt::format("the disk was restored from snapshot '{}'", id_or_name));
}

Result<uint64_t> SnapshotEditor::used() const {
  ASSIGN_OR_RETURN(const HostCluster end, refcounts_->end_of_use());
  ASSIGN_OR_RETURN(const uint64_t clusters, refcounts_->count_used(end));
  return clusters << image_->geometry().cluster_bits();
}

Result<void> SnapshotEditor::close() {
  const Geometry& geometry = image_->geometry();
  ASSIGN_OR_RETURN(const HostCluster end, refcounts_->end_of_use());
  ASSIGN_OR_RETURN(const uint64_t used, refcounts_->count_used(end));
  // Creating a snapshot frees almost nothing.
  if (used >= used_before_) {
    ASSIGN_OR_RETURN(const uint64_t size, storage_->size());
    const uint64_t wanted = geometry.start_of(end).value();
    if (size < wanted) RETURN_IF_ERROR(storage_->resize(wanted));
    return storage_->flush();
  }
  for (uint64_t begin = 0; begin < end.value();) {
    uint64_t free = begin;
    for (; free < end.value(); ++free) {
      ASSIGN_OR_RETURN(const uint64_t count, refcounts_->get(HostCluster(free)));
      if (count != 0) break;
    }
    if (free > begin)
      storage_->discard(geometry.start_of(HostCluster(begin)), (free - begin)
                                                                   << geometry.cluster_bits());
    begin = free + 1;
  }
  DiskWriter::Options options;
  options.freed_before = used_before_ - used;
  refcounts_.reset();
  ASSIGN_OR_RETURN(const auto writer, DiskWriter::open(storage_, image_->header(), nullptr, {},
                                                       std::make_shared<TableCache>(kCacheSize),
                                                       options, encryption_));
  return writer->close();
}

}  // namespace vc::qcow2
