#include "qcow2/check/survey.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/check/cluster_set.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/encryption.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

namespace {

class Surveyor {
 public:
  Surveyor(const Storage& storage, const Header& header, const SurveyOptions& options,
           uint64_t file_size)
      : storage_(storage),
        header_(header),
        geometry_(header.geometry()),
        options_(options),
        file_size_(file_size),
        used_(geometry_.clusters_for(file_size)),
        order_(geometry_),
        table_(geometry_.cluster_size()) {}

  Result<Survey> run(const std::vector<Snapshot>& snapshots) {
    total_ = header_.l1_entries;
    for (const Snapshot& it : snapshots) total_ += it.l1_entries;

    mark(0, 1, HostUse::kMetadata);
    RETURN_IF_ERROR(mark_refcounts());
    mark(header_.snapshot_table.value(), snapshot_table_bytes(snapshots), HostUse::kMetadata);
    mark_luks();
    RETURN_IF_ERROR(mark_bitmaps());
    RETURN_IF_ERROR(walk(header_.l1_table, header_.l1_entries, true));
    for (const Snapshot& it : snapshots) RETURN_IF_ERROR(walk(it.l1_table, it.l1_entries, false));
    RETURN_IF_ERROR(count_rest());
    survey_.order = order_.figures();
    return survey_;
  }

 private:
  void damage(std::string what) {
    if (survey_.damages++ == 0) survey_.first_damage = std::move(what);
  }

  void mark_luks() {
    if (header_.crypt_method != CryptMethod::kLuks) return;
    const auto luks = encryption_pointer(header_);
    if (luks)
      mark(luks->at.value(), luks->length, HostUse::kMetadata);
    else
      damage(luks.error().message());
  }

  void found(HostCluster first, uint64_t count, HostUse use) {
    survey_.clusters[static_cast<size_t>(use)] += count;
    if (options_.host) options_.host(first, count, use);
  }

  // Marks the clusters of `length` bytes at `at`; returns how many had no use before.  Marks
  // nothing unless the whole range is within the file.
  uint64_t mark(uint64_t at, uint64_t length, HostUse use) {
    if (length == 0 || !within(at, length)) return 0;
    const HostCluster last = geometry_.host_cluster_of(HostOffset(at + length - 1));
    uint64_t added = 0;
    for (HostCluster it = geometry_.host_cluster_of(HostOffset(at)); it <= last; ++it) {
      if (!used_.add(it)) continue;
      ++added;
      found(it, 1, use);
    }
    return added;
  }
  bool within(uint64_t at, uint64_t length) const {
    return length <= file_size_ && at <= file_size_ - length;
  }
  // For a table that fills clusters; the file may end in the last one.
  bool begins_within(uint64_t at) const { return at < file_size_; }
  bool aligned(uint64_t at) const { return geometry_.offset_in_cluster(at) == 0; }

  // Reads the big-endian words at `at`; holes and words past the end of the file are zeros.
  Result<std::vector<uint64_t>> read_words(uint64_t at, uint64_t count) {
    std::vector<uint64_t> words;
    if (count == 0 || !begins_within(at)) return words;
    const uint64_t bytes = std::min(count * 8, file_size_ - at);
    ASSIGN_OR_RETURN(const Storage::Run run, storage_.run_at(HostOffset(at), bytes));
    if (!run.data && run.length >= bytes) return words;
    words.resize(bytes / 8);
    RETURN_IF_ERROR(storage_.read(HostOffset(at), std::as_writable_bytes(std::span(words))));
    for (uint64_t& word : words) word = swap_if_little(word);
    return words;
  }

  // Reads the cluster at `at` into table_; returns false if it is empty.
  Result<bool> read_table(uint64_t at) {
    const uint64_t size = geometry_.cluster_size();
    ASSIGN_OR_RETURN(const Storage::Run run, storage_.run_at(HostOffset(at), size));
    if (!run.data && run.length >= std::min(size, file_size_ - at)) return false;
    ASSIGN_OR_RETURN(const size_t got, storage_.read(HostOffset(at), table_));
    std::fill(table_.begin() + static_cast<ptrdiff_t>(got), table_.end(), std::byte{0});
    return true;
  }

  Result<void> mark_refcounts() {
    const uint64_t at = header_.refcount_table.value();
    const uint64_t bytes = uint64_t{header_.refcount_table_clusters} << header_.cluster_bits;
    if (!within(at, bytes)) damage(fmt::format("the refcount table at {:#x} is truncated", at));
    mark(at, bytes, HostUse::kMetadata);
    ASSIGN_OR_RETURN(blocks_, read_words(at, bytes / 8));
    for (uint64_t& block : blocks_) {
      block &= kEntryOffsetMask;
      if (block == 0) continue;
      if (aligned(block) && mark(block, 1, HostUse::kMetadata) == 1) continue;
      damage(fmt::format("the refcount block at {:#x} is invalid", block));
      block = 0;
    }
    return {};
  }

  Result<void> mark_bitmaps() {
    const auto directory = read_bitmap_directory(storage_, header_);
    if (!directory) {
      damage(directory.error().message());
      return {};
    }
    mark(directory->at.value(), directory->size, HostUse::kMetadata);
    for (const Bitmap& it : directory->bitmaps) {
      const uint64_t bytes = uint64_t{it.table_entries} * 8;
      if (mark(it.table.value(), bytes, HostUse::kMetadata) == 0) {
        if (bytes > 0)
          damage(fmt::format("the table of bitmap '{}' at {:#x} is invalid", it.name,
                             it.table.value()));
        continue;
      }
      ASSIGN_OR_RETURN(const auto words, read_words(it.table.value(), it.table_entries));
      for (const uint64_t word : words) mark(word & kEntryOffsetMask, word > 1, HostUse::kMetadata);
    }
    return {};
  }

  Result<void> walk(HostOffset l1_table, uint64_t entries, bool active) {
    const uint64_t begin = done_;
    const uint64_t bytes = entries * 8;
    const HostUse use = active ? HostUse::kMetadata : HostUse::kSnapshot;
    if (entries > 0 && !within(l1_table.value(), bytes))
      damage(fmt::format("the L1 table at {:#x} is truncated", l1_table.value()));
    else if (entries > 0 && mark(l1_table.value(), bytes, use) == 0)
      damage(fmt::format("the L1 table at {:#x} overlaps another structure", l1_table.value()));
    else {
      ASSIGN_OR_RETURN(const auto words, read_words(l1_table.value(), entries));
      for (uint64_t i = 0; i < words.size(); ++i) {
        done_ = begin + i;
        if (options_.progress && i % 64 == 0) options_.progress(done_, total_);
        if ((words[i] & kEntryOffsetMask) == 0) continue;
        RETURN_IF_ERROR(walk_table(i, words[i] & kEntryOffsetMask, active));
      }
    }
    done_ = begin + entries;
    return {};
  }

  Result<void> walk_table(uint64_t l1_index, uint64_t at, bool active) {
    if (!aligned(at) || !begins_within(at)) {
      damage(fmt::format("L1 entry {}: no L2 table can be at {:#x}", l1_index, at));
      return {};
    }
    if (mark(at, 1, active ? HostUse::kMetadata : HostUse::kSnapshot) == 0) {
      // Snapshots share tables with the disk and with each other.
      if (active)
        damage(fmt::format("L1 entry {}: {:#x} is used by another structure", l1_index, at));
      return {};
    }
    ASSIGN_OR_RETURN(const bool anything, read_table(at));
    if (!anything) return {};
    const uint64_t first = l1_index << geometry_.l2_bits();
    for (uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
      const L2Entry entry = load_l2_entry(table_, i, geometry_.extended_l2());
      if (entry.word != 0 || entry.bitmap != 0) visit(ClusterIndex(first + i), entry, active);
    }
    return {};
  }

  void visit(ClusterIndex cluster, L2Entry entry, bool active) {
    const uint64_t guest = geometry_.start_of(cluster).value();
    // Data past the end of the disk is VM state, which guests do not read.
    const bool read = active && guest < header_.size;
    if (entry.compressed()) {
      const auto descriptor = CompressedDescriptor::decode(entry.word, geometry_.cluster_bits());
      const uint64_t at = descriptor.offset.value();
      if (header_.has_data_file() || !begins_within(at)) {
        damage(fmt::format("guest offset {:#x}: no compressed cluster can be at {:#x}", guest, at));
        return;
      }
      mark(at, std::min(descriptor.readable_bytes(), file_size_ - at),
           active ? HostUse::kCompressed : HostUse::kSnapshot);
      if (read) order_.compressed(descriptor.offset, descriptor.readable_bytes());
      return;
    }
    const uint64_t host = entry.host().value();
    const bool in_data_file = header_.has_data_file();
    const bool placed = host != 0 || (in_data_file && entry.copied());
    if (!aligned(host) || (placed && !in_data_file && !begins_within(host))) {
      damage(fmt::format("guest offset {:#x}: no cluster can be at {:#x}", guest, host));
      return;
    }
    const uint64_t data = place(cluster, entry, placed, read);
    if (!placed || in_data_file) return;
    HostUse use = data > 0 ? HostUse::kData : HostUse::kReserved;
    if (!active) use = HostUse::kSnapshot;
    if (mark(host, 1, use) == 0 && active)
      damage(fmt::format("guest offset {:#x}: the cluster at {:#x} is used by another structure",
                         guest, host));
  }

  // Adds a standard entry to the figures if the guest reads it.  Returns the bytes of data in the
  // cluster.
  uint64_t place(ClusterIndex cluster, L2Entry entry, bool placed, bool read) {
    const uint64_t size = geometry_.cluster_size();
    const uint64_t unit = geometry_.subcluster_size();
    uint32_t zero = entry.zero_flag() ? 1 : 0;
    uint32_t data = placed && !entry.zero_flag() ? 1 : 0;
    if (geometry_.extended_l2()) {
      zero = entry.zero_mask();
      data = placed ? entry.allocated_mask() : 0;
      if ((zero & data) != 0)
        damage(fmt::format("guest offset {:#x}: its subclusters contradict each other",
                           geometry_.start_of(cluster).value()));
      data &= ~zero;
    }
    const uint64_t bytes = static_cast<uint64_t>(std::popcount(data)) * unit;
    if (!read) return bytes;
    // Ignores subclusters past the end of the disk; a shrunk disk still has them.
    const uint64_t rest = header_.size - geometry_.start_of(cluster).value();
    if (geometry_.extended_l2() && rest < size) {
      const auto within = static_cast<uint32_t>((uint64_t{1} << divide_up(rest, unit)) - 1);
      zero &= within;
      data &= within;
    }
    survey_.zero_bytes += static_cast<uint64_t>(std::popcount(zero)) * unit;
    if (placed) survey_.reserved_bytes += size - bytes;
    for (unsigned i = 0; data >> i != 0;) {
      i += static_cast<unsigned>(std::countr_zero(data >> i));
      const auto count = static_cast<unsigned>(std::countr_one(data >> i));
      order_.plain(entry.host() + i * unit, count * unit);
      i += count;
      if (i >= 32) break;
    }
    return bytes;
  }

  // Counts unreferenced clusters: leaked if they have a refcount, else free.
  Result<void> count_rest() {
    const uint64_t end = used_.clusters();
    const uint64_t reach = refcounts_per_block(header_.cluster_bits, header_.refcount_order);
    for (uint64_t i = 0, begin = 0; begin < end; ++i, begin += reach) {
      // Past the last block, all clusters up to the end are uncounted.
      const bool last = i >= blocks_.size();
      const uint64_t stop = last ? end : std::min(end, begin + reach);
      bool counted = !last && blocks_[i] != 0;
      if (counted) {
        ASSIGN_OR_RETURN(counted, read_table(blocks_[i]));
      }
      used_.visit_gaps(begin, stop, [&](HostCluster first, uint64_t count) {
        if (counted)
          count_gap(first.value(), count, begin);
        else
          found(first, count, HostUse::kFree);
      });
      if (last) break;
    }
    return {};
  }

  void count_gap(uint64_t first, uint64_t count, uint64_t begin) {
    uint64_t from = first;
    const auto leaked = [&](uint64_t cluster) {
      return get_refcount(table_, cluster - begin, header_.refcount_order) != 0;
    };
    while (from < first + count) {
      const bool is_leaked = leaked(from);
      uint64_t to = from + 1;
      while (to < first + count && leaked(to) == is_leaked) ++to;
      found(HostCluster(from), to - from, is_leaked ? HostUse::kLeaked : HostUse::kFree);
      from = to;
    }
  }

  const Storage& storage_;
  const Header& header_;
  const Geometry geometry_;
  const SurveyOptions& options_;
  const uint64_t file_size_;
  ClusterSet used_;
  Fragmentation order_;
  std::vector<std::byte> table_;  // an L2 table, or a refcount block
  std::vector<uint64_t> blocks_;  // offsets of refcount blocks; 0: none
  uint64_t done_ = 0;             // L1 entries
  uint64_t total_ = 0;
  Survey survey_;
};

}  // namespace

Result<Survey> survey(const Storage& storage, const Header& header,
                      const std::vector<Snapshot>& snapshots, const SurveyOptions& options) {
  ASSIGN_OR_RETURN(const uint64_t file_size, storage.size());
  const uint64_t clusters = header.geometry().clusters_for(file_size);
  if (clusters > ClusterSet::kMostClusters)
    return fail(Error::unsupported(
        fmt::format("{}: the file has {} clusters, too many to count: the limit is {}",
                    storage.name(), clusters, ClusterSet::kMostClusters)));
  return Surveyor(storage, header, options, file_size).run(snapshots);
}

}  // namespace vc::qcow2
