#include "qcow2/check/recorded_counts.h"

#include <algorithm>

#include "base/byte_order.h"
#include "base/parallel.h"
#include "base/zero_bytes.h"
#include "qcow2/format/refcount_block.h"
#include "storage/padded_read.h"

namespace vc::qcow2 {

namespace {

constexpr uint32_t kNoBlock = UINT32_MAX;

}  // namespace

Result<RecordedCounts> RecordedCounts::load(const Storage& storage, const Header& header,
                                            uint64_t file_size, unsigned threads) {
  RecordedCounts it;
  it.storage_ = &storage;
  it.file_size_ = file_size;
  it.cluster_size_ = header.geometry().cluster_size();
  it.order_ = header.refcount_order;
  it.per_block_ = refcounts_per_block(header.cluster_bits, header.refcount_order);
  const uint64_t bytes = uint64_t{header.refcount_table_clusters} << header.cluster_bits;
  it.usable_ = header.geometry().offset_in_cluster(header.refcount_table.value()) == 0 &&
               bytes <= Limits::kRefcountTableBytes &&
               header.refcount_table.value() <= static_cast<uint64_t>(INT64_MAX) - bytes;
  if (!it.usable_) return it;
  it.table_.resize(bytes / 8);
  RETURN_IF_ERROR(with_context(
      read_padded(storage, header.refcount_table, std::as_writable_bytes(std::span(it.table_))),
      "refcount table"));
  for (uint64_t& word : it.table_) word = swap_if_little(word);
  it.load_ones(threads);
  return it;
}

std::optional<HostOffset> RecordedCounts::block_of(uint64_t index) const {
  if (index >= table_.size()) return HostOffset(0);
  const uint64_t at = table_[index] & ~kReservedMask;
  if (at % cluster_size_ != 0) return std::nullopt;
  return HostOffset(at);
}

uint64_t RecordedCounts::next_block(uint64_t from) const {
  while (from < table_.size() && (table_[from] & ~kReservedMask) == 0) ++from;
  return std::min<uint64_t>(from, table_.size());
}

void RecordedCounts::load_ones(unsigned threads) {
  for (uint64_t i = next_block(0); i < table_.size(); i = next_block(i + 1))
    if (const auto block = block_of(i)) ones_.push_back({block->value(), {}, false});
  const auto by_offset = [](const Ones& a, const Ones& b) { return a.block < b.block; };
  std::sort(ones_.begin(), ones_.end(), by_offset);
  ones_.erase(std::unique(ones_.begin(), ones_.end(),
                          [](const Ones& a, const Ones& b) { return a.block == b.block; }),
              ones_.end());
  ones_index_.assign(table_.size(), kNoBlock);
  for (uint64_t i = next_block(0); i < table_.size(); i = next_block(i + 1))
    if (const auto block = block_of(i)) {
      const auto found =
          std::lower_bound(ones_.begin(), ones_.end(), Ones{block->value(), {}, false}, by_offset);
      ones_index_[i] = static_cast<uint32_t>(found - ones_.begin());
    }

  parallel_for(ones_.size(), threads, [&](size_t which) {
    Ones& ones = ones_[which];
    if (is_hole(*storage_, file_size_, HostOffset(ones.block), cluster_size_)) return;
    std::vector<std::byte> block(cluster_size_);
    if (!read_padded(*storage_, HostOffset(ones.block), block)) {
      ones.failed = true;
      return;
    }
    if (is_zero(block)) return;
    ones.bits.resize((per_block_ + 63) / 64);
    for (uint64_t i = 0; i < per_block_; ++i)
      if (get_refcount(block, i, order_) == 1) ones.bits[i / 64] |= uint64_t{1} << (i % 64);
  });
  for (const Ones& ones : ones_)
    if (ones.failed) unreadable_.emplace_back(ones.block);
}

std::optional<bool> RecordedCounts::is_one(HostCluster cluster) const {
  const uint64_t index = cluster.value() / per_block_;
  if (index >= table_.size() || (table_[index] & ~kReservedMask) == 0) return false;
  if (ones_index_[index] == kNoBlock) return std::nullopt;
  const Ones& ones = ones_[ones_index_[index]];
  if (ones.failed) return std::nullopt;
  if (ones.bits.empty()) return false;
  const uint64_t at = cluster.value() % per_block_;
  return (ones.bits[at / 64] >> (at % 64) & 1) != 0;
}

Result<std::optional<uint64_t>> RecordedCounts::get(HostCluster cluster) const {
  const uint64_t index = cluster.value() / per_block_;
  if (!block_of(index)) return std::optional<uint64_t>();
  std::vector<std::byte> block(cluster_size_);
  ASSIGN_OR_RETURN(const bool there, read_block(index, block));
  return there ? get_refcount(block, cluster.value() % per_block_, order_) : uint64_t{0};
}

Result<bool> RecordedCounts::read_block(uint64_t index, std::span<std::byte> block) const {
  const auto at = block_of(index);
  if (!at || at->value() == 0 || is_hole(*storage_, file_size_, *at, cluster_size_)) return false;
  RETURN_IF_ERROR(with_context(read_padded(*storage_, *at, block), "refcount block"));
  return true;
}

}  // namespace vc::qcow2
