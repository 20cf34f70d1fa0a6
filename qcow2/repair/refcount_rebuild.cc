#include "qcow2/repair/refcount_rebuild.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "base/byte_order.h"
#include "qcow2/format/header_fields.h"
#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

namespace {

// Source: qcow2 specification, "Header": the table's offset, 8 bytes, and its clusters, 4 bytes.
constexpr uint64_t kMostUnflushed = 16 << 20;  // bytes

class Rebuild {
 public:
  Rebuild(Storage& storage, Checker& checker, uint64_t start, CheckObserver& observer)
      : storage_(storage),
        checker_(checker),
        observer_(observer),
        header_(checker.header()),
        geometry_(header_.geometry()),
        block_bits_(header_.cluster_bits + 3 - header_.refcount_order),
        start_(std::max(start, checker.clusters())) {}

  Result<void> run() {
    const auto mark_page = [&](uint64_t first, std::span<const uint32_t> page) -> Result<void> {
      for (uint64_t i = 0; i < page.size(); ++i)
        if (page[i] != 0) {
          mark(first + i);
          start_ = std::max(start_, first + i + 1);
        }
      return {};
    };
    const auto count_page = [&](uint64_t first, std::span<const uint32_t> page) -> Result<void> {
      for (uint64_t i = 0; i < page.size(); ++i)
        if (page[i] != 0) RETURN_IF_ERROR(count(first + i, page[i]));
      return {};
    };
    const Checker::Visit mark_all = [&](const ReferenceCounts& counts) {
      return each_page(counts, mark_page);
    };
    const Checker::Visit count_all = [&](const ReferenceCounts& counts) {
      return each_page(counts, count_page);
    };
    RETURN_IF_ERROR(checker_.count(false, observer_, mark_all));
    RETURN_IF_ERROR(place());
    RETURN_IF_ERROR(checker_.count(false, observer_, count_all));
    // The new clusters come last: they are past all others.
    for (uint64_t cluster = start_; cluster < start_ + table_clusters_ + used_.size(); ++cluster)
      RETURN_IF_ERROR(count(cluster, 1));
    RETURN_IF_ERROR(write_block());
    RETURN_IF_ERROR(write_table());
    RETURN_IF_ERROR(write_refcount_table_fields(storage_, geometry_.start_of(HostCluster(start_)),
                                                static_cast<uint32_t>(table_clusters_)));
    return storage_.flush();
  }

 private:
  template <typename Visit>
  static Result<void> each_page(const ReferenceCounts& counts, Visit visit) {
    std::vector<uint32_t> page(ReferenceCounts::kPageClusters);
    for (uint64_t at = counts.next_page(counts.begin().value());
         at != ReferenceCounts::kNoEnd && at < counts.end().value();
         at = counts.next_page(at + ReferenceCounts::kPageClusters)) {
      if (!counts.copy(HostCluster(at), page)) continue;
      RETURN_IF_ERROR(visit(at, std::span<const uint32_t>(page)));
    }
    return {};
  }

  // Ranges must be marked in ascending order.
  void mark(uint64_t cluster) {
    const uint64_t range = cluster >> block_bits_;
    if (used_.empty() || used_.back() != range) used_.push_back(range);
  }

  //     | all old clusters | table | blocks |
  Result<void> place() {
    const uint64_t entries = geometry_.cluster_size() / 8;
    const std::vector<uint64_t> others = used_;
    // More blocks may need another block, or a larger table.
    for (uint64_t blocks = others.size();; blocks = used_.size()) {
      const uint64_t last = (start_ + table_clusters_ + blocks - 1) >> block_bits_;
      const uint64_t table_clusters = last / entries + 1;
      used_ = others;
      for (uint64_t range = start_ >> block_bits_; range <= last; ++range)
        if (used_.empty() || used_.back() < range) used_.push_back(range);
      if (used_.size() == blocks && table_clusters == table_clusters_) break;
      table_clusters_ = table_clusters;
    }
    if (table_clusters_ << geometry_.cluster_bits() > Limits::kRefcountTableBytes)
      return fail(Error::system(
          EFBIG, fmt::format("{}: the file is too long to be counted", storage_.name())));
    return {};
  }

  Result<void> count(uint64_t cluster, uint64_t references) {
    const unsigned bits = header_.refcount_bits();
    if (bits < 64 && references > (uint64_t{1} << bits) - 1)
      return fail(Error::unsupported(fmt::format(
          "{}: the cluster at {:#x} has {} references, more than a refcount of {} bits can hold: "
          "copy the disk with -o refcount_bits=16",
          storage_.name(), geometry_.start_of(HostCluster(cluster)).value(), references, bits)));
    const uint64_t range = cluster >> block_bits_;
    if (block_.empty() || used_[next_] != range) {
      RETURN_IF_ERROR(write_block());
      while (used_[next_] != range) ++next_;
      block_.assign(geometry_.cluster_size(), std::byte{0});
    }
    set_refcount(block_, cluster & ((uint64_t{1} << block_bits_) - 1), header_.refcount_order,
                 references);
    return {};
  }

  HostOffset block_at(uint64_t number) const {
    return geometry_.start_of(HostCluster(start_ + table_clusters_ + number));
  }

  Result<void> write_block() {
    if (block_.empty()) return {};
    RETURN_IF_ERROR(storage_.write(block_at(next_), block_));
    block_.clear();
    // Unflushed data uses memory.
    unflushed_ += geometry_.cluster_size();
    if (unflushed_ < kMostUnflushed) return {};
    unflushed_ = 0;
    return storage_.flush();
  }

  Result<void> write_table() {
    std::vector<std::byte> table(table_clusters_ << geometry_.cluster_bits());
    for (uint64_t i = 0; i < used_.size(); ++i)
      store_be64(&table[used_[i] * 8], block_at(i).value());
    RETURN_IF_ERROR(storage_.write(geometry_.start_of(HostCluster(start_)), table));
    return storage_.flush();
  }

  Storage& storage_;
  Checker& checker_;
  CheckObserver& observer_;
  const Header header_;
  const Geometry geometry_;
  const unsigned block_bits_;
  uint64_t start_;              // the first new cluster
  std::vector<uint64_t> used_;  // ranges with a block, ascending
  uint64_t table_clusters_ = 1;
  size_t next_ = 0;               // the block being filled, as an index of used_
  std::vector<std::byte> block_;  // empty: none
  uint64_t unflushed_ = 0;        // bytes of blocks
};

}  // namespace

Result<void> rebuild_refcounts(Storage& storage, Checker& checker, uint64_t start,
                               CheckObserver& observer) {
  return Rebuild(storage, checker, start, observer).run();
}

}  // namespace vc::qcow2
