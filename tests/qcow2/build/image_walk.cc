#include "tests/qcow2/build/image_walk.h"

#include <vector>

#include "base/byte_order.h"
#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"

namespace vc::test {

using qcow2::Header;
using Kind = MappedCluster::Kind;

namespace {

constexpr uint64_t bit(unsigned n) {
  return uint64_t{1} << n;
}

// Reads bit by bit, to share no code with the writer.
uint64_t count_at(std::span<const std::byte> block, uint64_t index, unsigned bits) {
  uint64_t count = 0;
  if (bits < 8) {
    for (unsigned i = 0; i < bits; ++i) {
      const uint64_t at = index * bits + i;
      count |= (std::to_integer<uint64_t>(block[at / 8]) >> (at % 8) & 1) << i;
    }
    return count;
  }
  for (unsigned i = 0; i < bits / 8; ++i)
    count = count << 8 | std::to_integer<uint64_t>(block[index * (bits / 8) + i]);
  return count;
}

class Walk {
 public:
  explicit Walk(std::span<const std::byte> file)
      : file_(file), cluster_size_(cluster_size_of(file)) {
    REQUIRE(file.size() % cluster_size_ == 0);
    references_.resize(file.size() / cluster_size_);
    shared_.resize(references_.size());
    data_.resize(references_.size());
  }

  WalkedImage run() {
    const auto read = Header::read(
        qcow2::MemoryStorage("built", {file_.begin(), file_.begin() + ptrdiff_t(cluster_size_)}));
    REQUIRE_OK(read);
    image_.header = *read;
    refer(0, 1, false);
    walk_tables();
    check_refcounts();
    for (const bool holds_data : data_) image_.host_clusters += holds_data;
    return std::move(image_);
  }

 private:
  static uint64_t cluster_size_of(std::span<const std::byte> file) {
    REQUIRE(file.size() >= 512);
    return bit(std::to_integer<unsigned>(file[23]));
  }

  void refer(uint64_t offset, uint64_t length, bool shares) {
    CAPTURE(offset, length);
    if (length == 0 || offset + length > file_.size()) FAIL("a reference past the end");
    for (uint64_t c = offset / cluster_size_; c <= (offset + length - 1) / cluster_size_; ++c) {
      if (references_[c] > 0 && !(shares && shared_[c])) FAIL("two own the cluster " << c);
      ++references_[c];
      shared_[c] = shares;
    }
  }

  void walk_tables() {
    const Header& header = image_.header;
    const uint64_t l1 = header.l1_table.value();
    refer(l1, header.l1_entries * 8, false);
    for (uint64_t i = 0; i < header.l1_entries; ++i) {
      const uint64_t entry = load_be64(&file_[l1 + i * 8]);
      if (entry == 0) continue;
      CAPTURE(i, entry);
      if ((entry & bit(63)) == 0 || (entry & (cluster_size_ - 1)) != 0) FAIL("a bad L1 entry");
      walk_l2(i, entry & ~bit(63));
    }
    const uint64_t used = (header.l1_entries * 8 + cluster_size_ - 1) / cluster_size_;
    for (uint64_t at = l1 + header.l1_entries * 8; at < l1 + used * cluster_size_; ++at)
      if (file_[at] != std::byte{0}) FAIL("something after the L1 table at " << at);
  }

  void walk_l2(uint64_t l1_index, uint64_t table) {
    refer(table, cluster_size_, false);
    ++image_.l2_tables;
    const bool extended = image_.header.extended_l2();
    const uint64_t entry_size = extended ? 16 : 8;
    const uint64_t entries = cluster_size_ / entry_size;
    bool used = false;
    for (uint64_t i = 0; i < entries; ++i) {
      const uint64_t word = load_be64(&file_[table + i * entry_size]);
      const uint64_t bitmap = extended ? load_be64(&file_[table + i * entry_size + 8]) : 0;
      if (word == 0 && bitmap == 0) continue;
      used = true;
      CAPTURE(l1_index, i, word, bitmap);
      image_.clusters[l1_index * entries + i] = decode(word, bitmap, extended);
    }
    if (!used) FAIL("an L2 table without an entry at " << table);
  }

  MappedCluster decode(uint64_t word, uint64_t bitmap, bool extended) {
    if ((word & bit(62)) != 0) {
      if ((word & bit(63)) != 0 || bitmap != 0) FAIL("a bad compressed entry");
      const unsigned x = 62 - (image_.header.cluster_bits - 8);
      const uint64_t offset = word & (bit(x) - 1);
      const uint64_t sectors = ((word & (bit(62) - 1)) >> x) + 1;
      const uint64_t length = sectors * 512 - offset % 512;
      refer(offset, length, true);
      note_data(offset, length);
      return {Kind::kCompressed, offset, length};
    }
    if (extended ? word == 0 && bitmap == 0xffffffff00000000 : word == 1) {
      if (image_.header.version < 3) FAIL("version 2 has no zero clusters");
      return {Kind::kZero, 0, 0};
    }
    if ((word & bit(63)) == 0 || (word & (bit(62) | (cluster_size_ - 1))) != 0 ||
        (extended && bitmap != 0xffffffff))
      FAIL("a bad entry");
    refer(word & ~bit(63), cluster_size_, false);
    note_data(word & ~bit(63), cluster_size_);
    return {Kind::kData, word & ~bit(63), cluster_size_};
  }

  void note_data(uint64_t offset, uint64_t length) {
    for (uint64_t c = offset / cluster_size_; c <= (offset + length - 1) / cluster_size_; ++c)
      data_[c] = true;
  }

  void check_refcounts() {
    const Header& header = image_.header;
    const uint64_t table = header.refcount_table.value();
    const uint64_t table_bytes = header.refcount_table_clusters * cluster_size_;
    refer(table, table_bytes, false);
    const unsigned bits = header.refcount_bits();
    const uint64_t per_block = cluster_size_ * 8 / bits;
    const uint64_t used = (references_.size() + per_block - 1) / per_block;
    REQUIRE(used * 8 <= table_bytes);
    for (uint64_t i = 0; i < used; ++i) {
      const uint64_t block = load_be64(&file_[table + i * 8]);
      if (block == 0 || block % cluster_size_ != 0) FAIL("a bad refcount block, number " << i);
      refer(block, cluster_size_, false);
    }
    for (uint64_t i = used; i < table_bytes / 8; ++i)
      if (load_be64(&file_[table + i * 8]) != 0) FAIL("a refcount block past the end: " << i);
    for (uint64_t c = 0; c < used * per_block; ++c) {
      const uint64_t block = load_be64(&file_[table + c / per_block * 8]);
      const uint64_t count = count_at(file_.subspan(block, cluster_size_), c % per_block, bits);
      const uint64_t references = c < references_.size() ? references_[c] : 0;
      if (count != references)
        FAIL("cluster " << c << " of " << references_.size() << " has " << references
                        << " references, counted as " << count);
      if (c < references_.size() && references == 0) FAIL("cluster " << c << " is of no use");
    }
  }

  std::span<const std::byte> file_;
  uint64_t cluster_size_;
  WalkedImage image_;
  std::vector<uint64_t> references_;  // per cluster of the file
  std::vector<bool> shared_;          // holds compressed data
  std::vector<bool> data_;            // holds guest data
};

}  // namespace

WalkedImage walk(std::span<const std::byte> file) {
  return Walk(file).run();
}

}  // namespace vc::test
