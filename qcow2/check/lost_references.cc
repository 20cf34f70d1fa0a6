#include "qcow2/check/lost_references.h"

#include <algorithm>

#include "base/byte_order.h"
#include "base/zero_bytes.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/reserved_bits.h"
#include "storage/padded_read.h"

namespace vc::qcow2 {

namespace {

constexpr uint64_t kWordsPerSector = Geometry::kSectorSize / 8;
// The most zeroed parts, and runs of leaks, to keep.
constexpr size_t kMostKept = 1 << 16;
constexpr size_t kMostTold = 1 << 12;
constexpr uint64_t kBytesAtOnce = 1 << 20;  // bytes of a table per read
// Bytes of tables to read in excess of the length of the file, since tables may overlap.
constexpr uint64_t kMostTableBytes = 64 << 20;
// Bytes of leaked clusters to search for tables; the rest may contain one.
constexpr uint64_t kMostSearched = 256 << 20;
constexpr uint64_t kFirstLook = 4 << 10;

}  // namespace

void LostReferences::add(std::span<const ZeroedTable> zeroed) {
  for (const ZeroedTable& it : zeroed) {
    if (zeroed_.size() < kMostKept)
      zeroed_.push_back(it);
    else
      too_many_ = true;
  }
}

void LostReferences::add_leak(HostCluster first, uint64_t count, uint64_t references) {
  leaked_ += count;
  if (references == 0) unreferenced_ += count;
  if (leaks_.size() < kMostKept) leaks_.push_back({first.value(), count, references});
}

// Adds the sectors of `words` that contain only zeros.  `words` is a piece of a table; its first
// entry has index `first` and offset `at`.
void LostReferences::add_zero_words(ZeroedTable part, HostOffset at,
                                    std::span<const uint64_t> words, uint64_t first,
                                    bool all_of_it) {
  const uint64_t reach = part.guest_length;
  for (uint64_t begin = 0; begin < words.size(); begin += kWordsPerSector) {
    uint64_t end = begin;
    while (end < words.size()) {
      const uint64_t stop = std::min<uint64_t>(end + kWordsPerSector, words.size());
      if (!std::all_of(words.begin() + static_cast<ptrdiff_t>(end),
                       words.begin() + static_cast<ptrdiff_t>(stop),
                       [](uint64_t it) { return it == 0; }))
        break;
      end = stop;
    }
    if (end == begin) continue;
    part.at = at + begin * 8;
    part.entries = end - begin;
    part.whole = all_of_it && part.entries == words.size();
    part.guest = GuestOffset((first + begin) * reach);
    part.guest_length = part.entries * reach;
    add({&part, 1});
    begin = end;
  }
}

void LostReferences::add_l1(HostOffset at, uint64_t entries, uint32_t snapshot) {
  std::vector<uint64_t> words;
  for (uint64_t first = 0; first < entries; first += kBytesAtOnce / 8) {
    words.assign(std::min(kBytesAtOnce / 8, entries - first), 0);
    const HostOffset from = at + first * 8;
    const uint64_t length = words.size() * 8;
    if (from.value() >= file_size_) return;
    table_bytes_ += length;
    if (table_bytes_ > file_size_ + kMostTableBytes) return;
    if (!is_hole(*storage_, file_size_, from, length) &&
        !read_padded(*storage_, from, std::as_writable_bytes(std::span(words))))
      continue;
    ZeroedTable part;
    part.place = Finding::Place::kL1Table;
    part.snapshot = snapshot;
    part.guest_length = header_.geometry().l2_reach();
    add_zero_words(part, from, words, first, words.size() == entries);
  }
}

void LostReferences::add_bitmap(HostOffset at, uint64_t bytes, uint64_t bitmap) {
  std::vector<std::byte> piece;
  for (uint64_t done = 0; done < bytes; done += kBytesAtOnce) {
    const HostOffset from = at + done;
    piece.resize(std::min(kBytesAtOnce, bytes - done));
    if (from.value() >= file_size_) return;
    table_bytes_ += piece.size();
    if (table_bytes_ > file_size_ + kMostTableBytes) return;
    if (is_hole(*storage_, file_size_, from, piece.size())) continue;
    if (!read_padded(*storage_, from, piece) || !is_zero(piece)) return;
  }
  ZeroedTable table;
  table.place = Finding::Place::kBitmapTable;
  table.at = at;
  table.entries = bytes / 8;
  table.index = bitmap;
  add({&table, 1});
}

bool LostReferences::leak_touches(uint64_t cluster) const {
  if (cluster == 0) return false;
  // They were added in file order.
  const auto next =
      std::upper_bound(leaks_.begin(), leaks_.end(), cluster,
                       [](uint64_t at, const Leak& it) { return at < it.first + it.count; });
  return next != leaks_.end() && next->first <= cluster && next->references == 0;
}

bool LostReferences::is_table(HostCluster cluster, uint64_t& budget) const {
  const Geometry geometry = header_.geometry();
  const HostOffset at = geometry.start_of(cluster);
  if (is_hole(*storage_, file_size_, at, geometry.cluster_size())) return false;
  std::vector<std::byte> bytes(std::min(kFirstLook, geometry.cluster_size()));
  const auto sound = [&](const L2Entry& entry) {
    if (entry.compressed())
      return CompressedDescriptor::decode(entry.word & ~kEntryCopied, geometry.cluster_bits())
                 .offset.value() < file_size_;
    return (entry.word & kReservedInEntry) == 0 &&
           geometry.offset_in_cluster(entry.host().value()) == 0 &&
           (header_.has_data_file() || entry.host().value() < file_size_);
  };
  bool any = false;
  for (uint64_t done = 0; done < geometry.cluster_size(); done += bytes.size()) {
    budget -= std::min<uint64_t>(budget, bytes.size());
    if (!read_padded(*storage_, at + done, bytes)) return true;
    for (uint64_t i = 0; i < bytes.size() / geometry.l2_entry_size(); ++i) {
      const L2Entry entry = load_l2_entry(bytes, i, geometry.extended_l2());
      if (!sound(entry)) return false;
      any |= entry.host().value() != 0 || entry.compressed();
    }
  }
  return any;
}

bool LostReferences::any_leaked_table() const {
  uint64_t budget = kMostSearched;
  for (const Leak& leak : leaks_)
    for (uint64_t i = 0; i < leak.count; ++i) {
      if (budget == 0) return true;
      if (is_table(HostCluster(leak.first + i), budget)) return true;
    }
  return leaks_.size() == kMostKept;
}

bool LostReferences::fits(const ZeroedTable& zeroed, bool explained) const {
  if (zeroed.whole) return leaked_ > 0;
  const bool as_many = unreferenced_ >= (zeroed.entries + 1) / 2 && unreferenced_ <= zeroed.entries;
  return (as_many && !explained) || leak_touches(zeroed.follows) || leak_touches(zeroed.precedes);
}

bool LostReferences::judge(bool counts_unknown, bool damage_known,
                           const std::function<void(const Finding&)>& found) const {
  std::optional<bool> leaked_table;  // computed only if needed
  size_t told = 0;
  uint64_t explained = 0;  // clusters
  for (const ZeroedTable& it : zeroed_)
    if (it.whole && it.place == Finding::Place::kL2Table) explained += it.entries;
  for (const ZeroedTable& zeroed : zeroed_) {
    const bool is_l1 = zeroed.place == Finding::Place::kL1Table;
    const bool is_l2 = zeroed.place == Finding::Place::kL2Table;
    if (is_l1 && !leaked_table) leaked_table = leaked_ > 0 && any_leaked_table();
    const bool lost =
        (is_l1 ? *leaked_table : fits(zeroed, damage_known || explained >= leaked_)) ||
        (counts_unknown && is_l2 && zeroed.whole);
    if (!lost || told++ >= kMostTold) continue;
    Finding it{};
    it.kind = Finding::Kind::kLostReferences;
    it.severity = Finding::Severity::kNote;
    it.place = zeroed.place;
    it.host = zeroed.at;
    it.found = leaked_;
    it.snapshot = zeroed.snapshot;
    it.index = zeroed.index;
    if (is_l1 || is_l2) it.guest = zeroed.guest;
    it.guest_length = zeroed.guest_length;
    found(it);
  }
  return told > 0 || (too_many_ && leaked_ > 0);
}

}  // namespace vc::qcow2
