#include "qcow2/check/l2_check.h"

#include <algorithm>

#include "qcow2/format/reserved_bits.h"

namespace vc::qcow2 {

class L2Check::Walk {
 public:
  Walk(const L2Check& check, const TableReference& table, uint32_t number, bool keep_compressed,
       TableResult& result)
      : check_(check),
        table_(table),
        number_(number),
        keep_compressed_(keep_compressed),
        result_(result),
        first_guest_(table.l1_index * check.geometry_.l2_reach()),
        judges_copied_(table.active > 0 &&
                       check.recorded_.is_one(check.geometry_.host_cluster_of(table.at))) {}

  void run(std::span<const std::byte> bytes) {
    const bool extended = check_.geometry_.extended_l2();
    for (index_ = 0; index_ < check_.geometry_.l2_entries(); ++index_) {
      entry_ = load_l2_entry(bytes, index_, extended);
      if (entry_.word == 0 && entry_.bitmap == 0) continue;
      if (entry_.compressed())
        compressed();
      else
        standard();
    }
  }

 private:
  Finding finding(Finding::Kind kind, uint64_t expected) const {
    Finding it{};
    it.kind = kind;
    it.place = Finding::Place::kL2Table;
    it.times = table_.times();
    it.host = entry_.host();
    it.guest = GuestOffset(first_guest_ + index_ * check_.geometry_.cluster_size());
    it.entry = table_.at + index_ * check_.geometry_.l2_entry_size();
    it.found = entry_.word;
    it.expected = expected;
    it.snapshot = table_.snapshot;
    it.index = index_;
    it.table_references = table_.times();
    return it;
  }
  Finding& add(Finding::Kind kind, uint64_t expected, bool repairable) {
    result_.findings.push_back(finding(kind, expected));
    result_.findings.back().repairable = repairable;
    return result_.findings.back();
  }

  // Adds the references of guest data in `length` bytes of the file.
  void refer(HostOffset at, uint64_t length, Finding::Place place) {
    const Geometry& geometry = check_.geometry_;
    if (outside(at, length, check_.file_size_, geometry.cluster_size())) {
      Finding& it = add(Finding::Kind::kReferenceOutside, 0, false);
      it.place = place;
      it.host = at;
      it.found = length;
      return;
    }
    const uint64_t first = geometry.host_cluster_of(at).value();
    const uint64_t end = geometry.host_cluster_of(at + (length - 1)).value() + 1;
    if (const auto* const metadata = check_.metadata_.find(first, end - first)) {
      Finding& it = add(Finding::Kind::kOverlap, 0, false);
      it.place = place;
      it.other = metadata->place;
      it.host = HostOffset(std::max(first, metadata->first) << geometry.cluster_bits());
    }
    if (!result_.runs.empty() && result_.runs.back().end() == HostCluster(first))
      result_.runs.back().count += end - first;
    else
      result_.runs.push_back({HostCluster(first), end - first});
  }

  // Clusters past the end of the disk contain VM state, which guests do not read.
  bool guest_reads() const {
    return table_.active > 0 &&
           first_guest_ + index_ * check_.geometry_.cluster_size() < check_.header_.size;
  }

  void read_plain(HostOffset at, uint64_t length) {
    if (!result_.reads.empty()) {
      ReadPiece& last = result_.reads.back();
      if (!last.compressed && last.at + last.length == at) {
        last.length += length;
        return;
      }
    }
    result_.reads.push_back({at, length, false});
  }

  void read_standard(bool zero) {
    const Geometry& geometry = check_.geometry_;
    if (!guest_reads() || zero) return;
    if (!geometry.extended_l2()) {
      read_plain(entry_.host(), geometry.cluster_size());
      return;
    }
    const uint32_t data = entry_.allocated_mask() & ~entry_.zero_mask();
    for (unsigned i = 0; i < Geometry::kSubclusters; ++i)
      if ((data >> i & 1) != 0)
        read_plain(entry_.host() + i * geometry.subcluster_size(), geometry.subcluster_size());
  }

  void compressed() {
    uint64_t word = entry_.word;
    if (entry_.copied()) {
      word &= ~kEntryCopied;
      add(Finding::Kind::kCompressedCopied, word, true);
    }
    if (check_.header_.has_data_file()) {
      add(Finding::Kind::kCompressedInDataFile, 0, false);
      return;
    }
    if (entry_.bitmap != 0) {
      add(Finding::Kind::kCompressedBitmap, word, false);
      return;
    }
    result_.sums.allocated += 1;
    result_.sums.compressed += 1;
    result_.sums.fragmented += 1;
    const auto descriptor = CompressedDescriptor::decode(word, check_.geometry_.cluster_bits());
    if (guest_reads())
      result_.reads.push_back({descriptor.offset, descriptor.readable_bytes(), true});
    const uint64_t stream_end = descriptor.offset.value() + descriptor.readable_bytes();
    const uint64_t sectors_end = (check_.file_size_ + Geometry::kSectorSize - 1) /
                                 Geometry::kSectorSize * Geometry::kSectorSize;
    const Finding at = finding(Finding::Kind::kStreamDamaged, 0);
    if (keep_compressed_ && !outside(descriptor.offset, descriptor.readable_bytes(),
                                     check_.file_size_, check_.geometry_.cluster_size())) {
      result_.compressed.push_back({word, *at.entry, *at.guest, number_});
      return;
    }
    if (stream_end > sectors_end) result_.at_end.push_back({word, *at.entry, *at.guest, number_});
    refer(descriptor.offset, descriptor.readable_bytes(), Finding::Place::kCompressed);
  }

  void standard() {
    const Geometry& geometry = check_.geometry_;
    const bool extended = geometry.extended_l2();
    const uint64_t word = entry_.word;
    if ((word & kReservedInEntry) != 0)
      add(Finding::Kind::kL2Reserved, word & ~kReservedInEntry, true);
    const bool zero = !extended && entry_.zero_flag();
    if (zero && check_.header_.version < 3)
      add(Finding::Kind::kZeroFlagVersion2, word & ~kEntryZero, false);
    // In a data file, the first cluster is an ordinary host cluster.
    const bool placed =
        entry_.host().value() != 0 || (!zero && check_.header_.has_data_file() && entry_.copied());
    if (!placed) {
      if (entry_.allocated_mask() != 0) add(Finding::Kind::kSubclusterNowhere, word, false);
      return;
    }
    if ((entry_.allocated_mask() & entry_.zero_mask()) != 0) {
      add(Finding::Kind::kSubclusterConflict, word, false);
    }
    const HostOffset host = entry_.host();
    if (geometry.offset_in_cluster(host.value()) != 0) {
      const bool data = extended ? entry_.allocated_mask() != 0 : !zero;
      // If the guest sees zeros in any case, the host cluster is not needed.
      add(data ? Finding::Kind::kDataUnaligned : Finding::Kind::kPreallocatedUnaligned,
          extended ? 0 : kEntryZero, !data);
    }
    result_.sums.allocated += 1;
    if (next_ && *next_ != host) result_.sums.fragmented += 1;
    next_ = host + geometry.cluster_size();
    if (geometry.offset_in_cluster(host.value()) == 0) read_standard(zero);
    if (!check_.header_.has_data_file())
      refer(host, geometry.cluster_size(), Finding::Place::kData);
    if (judges_copied_) check_copied();
  }

  void check_copied() {
    const auto one = check_.header_.has_data_file()
                         ? std::optional<bool>(true)
                         : check_.recorded_.is_one(check_.geometry_.host_cluster_of(entry_.host()));
    if (!one || *one == entry_.copied()) return;
    Finding& it = add(Finding::Kind::kL2Copied, entry_.word ^ kEntryCopied, true);
    it.times = table_.active;
  }

  const L2Check& check_;
  const TableReference& table_;
  const uint32_t number_;
  const bool keep_compressed_;
  TableResult& result_;
  const uint64_t first_guest_;
  // As qemu-img, does not judge the flags of a table whose own refcount cannot be read.
  const bool judges_copied_;
  uint64_t index_ = 0;
  L2Entry entry_;
  std::optional<HostOffset> next_;  // past the last uncompressed cluster
};

void L2Check::check(const TableReference& table, uint32_t number, std::span<const std::byte> bytes,
                    bool keep_compressed, TableResult& result) const {
  Walk(*this, table, number, keep_compressed, result).run(bytes);
}

}  // namespace vc::qcow2
