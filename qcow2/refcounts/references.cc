#include "qcow2/refcounts/references.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/header_fields.h"
#include "qcow2/format/snapshot_fields.h"
#include "qcow2/format/structures.h"

namespace vc::qcow2 {

namespace {

// Words of a bitmap table per read.
constexpr uint64_t kWordsAtOnce = 128 << 10;

// The number of new L1 entries before the list is compacted.
constexpr size_t kCompactAtLeast = 1 << 16;

// Sorts the list, and merges duplicates by adding their counts.
void compact(std::vector<std::pair<uint64_t, uint64_t>>& list) {
  std::sort(list.begin(), list.end());
  size_t kept = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    if (kept > 0 && list[kept - 1].first == list[i].first)
      list[kept - 1].second += list[i].second;
    else
      list[kept++] = list[i];
  }
  list.resize(kept);
}

}  // namespace

Result<References> References::find(const Image& image) {
  References it(image);
  const Header& header = image.header();
  ASSIGN_OR_RETURN(it.file_size_, image.storage().size());
  const auto in_image = [&](Error error) {
    return fail(std::move(error).with_context(image.name()));
  };
  const auto found = [&]() -> Result<void> {
    // Checks the tables before reading them, since they may overlap many times.
    RETURN_IF_ERROR(for_each_structure(header, image.snapshots(),
                                       [&](Structure structure, HostOffset at, uint64_t bytes) {
                                         // A short file may end inside its first cluster.
                                         if (structure == Structure::kHeader) bytes = 1;
                                         return it.add(at, bytes, to_string(structure));
                                       }));
    if ((header.autoclear_features & autoclear::kBitmaps) != 0) RETURN_IF_ERROR(it.add_bitmaps());
    RETURN_IF_ERROR(it.check_apart());
    RETURN_IF_ERROR(it.read_refcount_table());
    RETURN_IF_ERROR(it.read_l1_table(header.l1_table, header.l1_entries, true));
    for (const Snapshot& snapshot : image.snapshots())
      RETURN_IF_ERROR(it.read_l1_table(snapshot.l1_table, snapshot.l1_entries, false));
    return it.read_bitmap_tables();
  }();
  if (!found) return in_image(found.error());
  compact(it.l2_tables_);
  return it;
}

Result<References> References::find_disk(const Image& image, HostOffset l1_table,
                                         uint64_t l1_entries) {
  References it(image);
  ASSIGN_OR_RETURN(it.file_size_, image.storage().size());
  RETURN_IF_ERROR(with_context(it.add(l1_table, l1_entries * 8, "L1 table"), image.name()));
  it.tables_.clear();
  RETURN_IF_ERROR(with_context(it.read_l1_table(l1_table, l1_entries, true), image.name()));
  compact(it.l2_tables_);
  return it;
}

// Adds a table of `length` bytes.
Result<void> References::add(HostOffset at, uint64_t length, const char* what) {
  if (length == 0) return {};
  if (length > file_size_ || at.value() > file_size_ - length)
    return fail(Error::corrupt(fmt::format("the {} at {:#x} ends past the end of the file at {:#x}",
                                           what, at.value(), file_size_)));
  tables_.push_back({at, length, what});
  return {};
}

Result<std::vector<uint64_t>> References::read_words(HostOffset at, uint64_t count,
                                                     const char* what) const {
  std::vector<uint64_t> words(count);
  RETURN_IF_ERROR(with_context(
      read_fully(image_->storage(), at, std::as_writable_bytes(std::span(words))), what));
  for (uint64_t& word : words) word = swap_if_little(word);
  return words;
}

// Returns the cluster that a table entry points to; 0 if none.
Result<HostOffset> References::cluster_at(uint64_t entry, const char* what) const {
  const HostOffset at(entry & kEntryOffsetMask);
  if (image_->geometry().offset_in_cluster(at.value()) != 0)
    return fail(Error::corrupt(
        fmt::format("the {} at {:#x} does not begin at a cluster", what, at.value())));
  if (at.value() >= file_size_ && at.value() != 0)
    return fail(Error::corrupt(fmt::format("the {} at {:#x} is past the end of the file at {:#x}",
                                           what, at.value(), file_size_)));
  return at;
}

Result<void> References::read_l1_table(HostOffset at, uint64_t entries, bool active) {
  ASSIGN_OR_RETURN(const auto words, read_words(at, entries, "L1 table"));
  for (uint64_t i = 0; i < words.size(); ++i) {
    ASSIGN_OR_RETURN(const HostOffset table, cluster_at(words[i], "L2 table"));
    if (table.value() == 0) continue;
    l2_tables_.emplace_back(table.value(), 1);
    if (active) active_tables_.push_back({i, words[i]});
  }
  // Snapshots mostly point to the same tables.
  if (l2_tables_.size() > 2 * compacted_ + kCompactAtLeast) {
    compact(l2_tables_);
    compacted_ = l2_tables_.size();
  }
  return {};
}

Result<void> References::read_refcount_table() {
  const Header& header = image_->header();
  const uint64_t bytes = uint64_t{header.refcount_table_clusters} << header.cluster_bits;
  ASSIGN_OR_RETURN(const auto words,
                   read_words(header.refcount_table, bytes / 8, "refcount table"));
  for (const uint64_t word : words) {
    ASSIGN_OR_RETURN(const HostOffset block, cluster_at(word, "refcount block"));
    if (block.value() != 0) clusters_.push_back(block);
  }
  return {};
}

Result<void> References::add_bitmaps() {
  ASSIGN_OR_RETURN(bitmaps_, read_bitmap_directory(image_->storage(), image_->header()));
  if (bitmaps_.size == 0) return {};
  RETURN_IF_ERROR(add(bitmaps_.at, bitmaps_.size, "directory of bitmaps"));
  for (const Bitmap& it : bitmaps_.bitmaps) {
    RETURN_IF_ERROR(add(it.table, uint64_t{it.table_entries} * 8, "table of a bitmap"));
    bitmap_tables_.push_back(tables_.back());
  }
  return {};
}

Result<void> References::read_bitmap_tables() {
  for (const Range& table : bitmap_tables_)
    for (uint64_t done = 0; done < table.length / 8; done += kWordsAtOnce) {
      ASSIGN_OR_RETURN(const auto words,
                       read_words(table.at + done * 8,
                                  std::min(kWordsAtOnce, table.length / 8 - done), table.what));
      for (const uint64_t word : words) {
        ASSIGN_OR_RETURN(const HostOffset data, cluster_at(word, "data of a bitmap"));
        if (data.value() != 0) clusters_.push_back(data);
      }
    }
  return {};
}

// Returns an error if two tables overlap.
Result<void> References::check_apart() {
  std::sort(tables_.begin(), tables_.end(),
            [](const Range& a, const Range& b) { return a.at < b.at; });
  for (size_t i = 1; i < tables_.size(); ++i)
    if (tables_[i - 1].at + tables_[i - 1].length > tables_[i].at)
      return fail(Error::corrupt(fmt::format("the {} at {:#x} and the {} at {:#x} overlap",
                                             tables_[i - 1].what, tables_[i - 1].at.value(),
                                             tables_[i].what, tables_[i].at.value())));
  return {};
}

Result<void> References::visit(const Visit& visit, const TableDone& table_done) const {
  const Geometry& geometry = image_->geometry();
  for (const Range& table : tables_) {
    const HostCluster first = geometry.host_cluster_of(table.at);
    visit(first, geometry.host_cluster_of(table.at + (table.length - 1)) - first + 1, 1);
  }
  for (const HostOffset at : clusters_) visit(geometry.host_cluster_of(at), 1, 1);
  for (const auto& [table, times] : l2_tables_) {
    visit(geometry.host_cluster_of(HostOffset(table)), 1, times);
    RETURN_IF_ERROR(with_context(visit_table(HostOffset(table), times, visit),
                                 fmt::format("{}: L2 table at {:#x}", image_->name(), table)));
    if (table_done) table_done(l2_tables_.size());
  }
  return {};
}

// Calls `each (index, entry)` for the entries of an L2 table that are not null.
template <typename Each>
Result<void> References::each_entry(HostOffset table, const Each& each) const {
  const Geometry& geometry = image_->geometry();
  // A table that is a hole in the file refers to nothing.
  ASSIGN_OR_RETURN(const Storage::Run run,
                   image_->storage().run_at(table, geometry.cluster_size()));
  if (!run.data && run.length >= geometry.cluster_size()) return {};
  std::vector<std::byte> bytes(geometry.cluster_size());
  RETURN_IF_ERROR(read_fully(image_->storage(), table, bytes));
  const bool extended = geometry.extended_l2();
  for (uint64_t i = 0; i < geometry.l2_entries(); ++i) {
    const L2Entry entry = load_l2_entry(bytes, i, extended);
    if (entry.word == 0) continue;
    RETURN_IF_ERROR(with_context(each(i, entry), fmt::format("entry {}", i)));
  }
  return {};
}

Result<void> References::visit_table(HostOffset table, uint64_t times, const Visit& visit) const {
  return each_entry(
      table, [&](uint64_t /*index*/, L2Entry entry) { return visit_entry(entry, times, visit); });
}

Result<void> References::visit_entry(L2Entry entry, uint64_t times, const Visit& visit) const {
  const Geometry& geometry = image_->geometry();
  // Clusters in a data file have no refcount.
  if (image_->header().has_data_file()) return {};
  if (!entry.compressed()) {
    ASSIGN_OR_RETURN(const HostOffset host, cluster_at(entry.word, "cluster"));
    if (host.value() != 0) visit(geometry.host_cluster_of(host), 1, times);
    return {};
  }
  const auto descriptor = CompressedDescriptor::decode(entry.word, geometry.cluster_bits());
  if (descriptor.offset.value() >= file_size_)
    return fail(Error::corrupt(
        fmt::format("the compressed cluster at {:#x} is past the end of the file at {:#x}",
                    descriptor.offset.value(), file_size_)));
  const HostCluster first = geometry.host_cluster_of(descriptor.offset);
  const HostCluster last =
      geometry.host_cluster_of(descriptor.offset + (descriptor.readable_bytes() - 1));
  visit(first, last - first + 1, times);
  return {};
}

Result<void> References::visit_roots(const PointerVisit& visit) const {
  const Header& header = image_->header();
  if (header.l1_entries > 0)
    RETURN_IF_ERROR(visit({HostOffset(header_field::kL1Table), header.l1_table.value(),
                           uint64_t{header.l1_entries} * 8}));
  if (const uint64_t bytes = snapshot_table_bytes(image_->snapshots()); bytes > 0)
    RETURN_IF_ERROR(
        visit({HostOffset(header_field::kSnapshotTable), header.snapshot_table.value(), bytes}));
  if (bitmaps_.size == 0) return {};
  return visit({bitmaps_.pointer, bitmaps_.at.value(), bitmaps_.size});
}

Result<void> References::visit_table_pointers(const PointerVisit& visit) const {
  HostOffset row = image_->header().snapshot_table;
  for (const Snapshot& it : image_->snapshots()) {
    if (it.l1_entries > 0)
      RETURN_IF_ERROR(visit(
          {row + snapshot_field::kL1Table, it.l1_table.value(), uint64_t{it.l1_entries} * 8}));
    row += round_up(snapshot_table_bytes({it}), 8);
  }
  for (const Bitmap& it : bitmaps_.bitmaps)
    RETURN_IF_ERROR(
        visit({it.entry + bitmap_field::kTable, it.table.value(), uint64_t{it.table_entries} * 8}));
  return {};
}

// Visits the words of a table that point to single clusters.
Result<void> References::visit_words_of(HostOffset table, uint64_t words, const char* what,
                                        const PointerVisit& visit) const {
  for (uint64_t done = 0; done < words; done += kWordsAtOnce) {
    ASSIGN_OR_RETURN(const auto some,
                     read_words(table + done * 8, std::min(kWordsAtOnce, words - done), what));
    for (uint64_t i = 0; i < some.size(); ++i)
      if ((some[i] & kEntryOffsetMask) != 0)
        RETURN_IF_ERROR(
            visit({table + (done + i) * 8, some[i], image_->geometry().cluster_size()}));
  }
  return {};
}

Result<void> References::visit_l1_tables(const PointerVisit& visit) const {
  const Header& header = image_->header();
  RETURN_IF_ERROR(visit_words_of(header.l1_table, header.l1_entries, "L1 table", visit));
  for (const Snapshot& it : image_->snapshots())
    RETURN_IF_ERROR(visit_words_of(it.l1_table, it.l1_entries, "L1 table of a snapshot", visit));
  return {};
}

Result<void> References::visit_inner(const PointerVisit& visit) const {
  RETURN_IF_ERROR(visit_l1_tables(visit));
  for (const Bitmap& it : bitmaps_.bitmaps)
    RETURN_IF_ERROR(visit_words_of(it.table, it.table_entries, "table of a bitmap", visit));
  return {};
}

// Visits the entries of an L2 table that point to clusters.
Result<void> References::visit_clusters(HostOffset table, uint64_t times,
                                        const PointerVisit& visit) const {
  const uint64_t entry_size = image_->geometry().l2_entry_size();
  return each_entry(table, [&](uint64_t index, L2Entry entry) -> Result<void> {
    if (!entry.compressed() && entry.host().value() == 0) return {};
    return visit({table + index * entry_size, entry.word, 0, times});
  });
}

Result<void> References::visit_pointers_of(HostOffset table, const PointerVisit& visit) const {
  if (image_->header().has_data_file()) return {};
  return visit_clusters(table, 1, visit);
}

Result<std::vector<HostOffset>> References::tables_in_order() const {
  std::vector<HostOffset> tables;
  std::unordered_set<uint64_t> seen;
  RETURN_IF_ERROR(visit_l1_tables([&](const Pointer& it) -> Result<void> {
    const HostOffset table(it.word & kEntryOffsetMask);
    if (seen.insert(table.value()).second) tables.push_back(table);
    return {};
  }));
  return tables;
}

Result<void> References::visit_pointers(Level level, const PointerVisit& visit) const {
  switch (level) {
    case Level::kRoots:
      return visit_roots(visit);
    case Level::kTables:
      return visit_table_pointers(visit);
    case Level::kInner:
      return visit_inner(visit);
    case Level::kClusters:
      break;
  }
  // Clusters in a data file do not belong to this file.
  if (image_->header().has_data_file()) return {};
  for (const auto& [table, times] : l2_tables_)
    RETURN_IF_ERROR(visit_clusters(HostOffset(table), times, visit));
  return {};
}

}  // namespace vc::qcow2
