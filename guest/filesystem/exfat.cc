#include "guest/filesystem/exfat.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/rounding.h"
#include "guest/reading/bitmap_runs.h"
#include "guest/reading/checksums.h"

namespace vc::guest {

namespace {

constexpr uint64_t kFirstCluster = 2;
constexpr uint32_t kEndOfChain = 0xFFFFFFF8;
constexpr uint8_t kBitmapEntry = 0x81;
constexpr uint8_t kUpCaseEntry = 0x82;
constexpr uint8_t kLabelEntry = 0x83;
// Largest up-case table, bytes: two for each character.
constexpr uint64_t kLargestUpCase = 128 << 10;
constexpr size_t kEntrySize = 32;
// A root directory has few entries. A longer chain of clusters is probably a loop.
constexpr uint64_t kMostRootClusters = 4096;
constexpr unsigned kBootSectors = 11;
constexpr uint64_t kPiece = 1 << 20;

bool probe(const Fields& head) {
  return head.has(3, "EXFAT   ");
}

class Volume {
 public:
  static Result<Volume> open(const ByteView& view);

  Result<Reading> read();

 private:
  explicit Volume(const ByteView& view) : view_(&view) {}

  Result<void> check_boot(const Fields& boot) const;
  Result<uint32_t> next(uint32_t cluster) const;
  uint64_t place(uint64_t cluster) const { return heap_ + (cluster - kFirstCluster) * cluster_; }
  bool is_cluster(uint64_t n) const { return n >= kFirstCluster && n < clusters_ + kFirstCluster; }
  // Returns the clusters of a chain, at most `most` of them.
  Result<std::vector<uint32_t>> chain(uint32_t first, uint64_t most) const;
  Result<void> read_root(Reading& reading);
  Result<std::vector<uint32_t>> up_case_clusters() const;
  Result<Ranges> free_clusters(const std::vector<uint32_t>& of_bitmap) const;

  const ByteView* view_;
  uint64_t sector_ = 0;   // bytes
  uint64_t cluster_ = 0;  // bytes
  uint64_t fat_ = 0;      // start of the active FAT, bytes
  uint64_t fat_size_ = 0;
  uint64_t heap_ = 0;  // start of cluster 2, bytes
  uint64_t clusters_ = 0;
  uint32_t root_ = 0;
  unsigned active_ = 0;
  uint32_t serial_ = 0;

  std::vector<uint32_t> root_chain_;
  uint32_t bitmap_ = 0;
  uint64_t bitmap_size_ = 0;
  uint32_t up_case_ = 0;
  uint64_t up_case_size_ = 0;
};

Result<Volume> Volume::open(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block block, view.block(0, 512));
  const Fields boot = block.fields();
  Volume it(view);
  const unsigned sector_bits = boot.u8(0x6C);
  const unsigned cluster_bits = boot.u8(0x6D);
  const unsigned fats = boot.u8(0x6E);
  if (sector_bits < 9 || sector_bits > 12 || cluster_bits > 25 - sector_bits || fats < 1 ||
      fats > 2)
    return doubt("its geometry is invalid");
  it.sector_ = uint64_t{1} << sector_bits;
  it.cluster_ = it.sector_ << cluster_bits;
  const uint64_t sectors = boot.le64(0x48);
  if (sectors > view.size() >> sector_bits) return doubt("it is larger than its partition");
  RETURN_IF_ERROR(it.check_boot(boot));
  it.active_ = fats == 2 ? boot.le16(0x6A) & 1 : 0;
  it.fat_size_ = boot.le32(0x54) * it.sector_;
  it.fat_ = boot.le32(0x50) * it.sector_ + it.active_ * it.fat_size_;
  it.heap_ = boot.le32(0x58) * it.sector_;
  it.clusters_ = boot.le32(0x5C);
  it.root_ = boot.le32(0x60);
  it.serial_ = boot.le32(0x64);
  const uint64_t size = sectors * it.sector_;
  if (it.heap_ > size || it.clusters_ > (size - it.heap_) / it.cluster_ ||
      boot.le32(0x50) * it.sector_ + fats * it.fat_size_ > it.heap_ ||
      (it.clusters_ + kFirstCluster) * 4 > it.fat_size_)
    return doubt("its geometry is invalid");
  return it;
}

// The checksum covers eleven sectors, except for the fields that change while the volume is
// mounted.
Result<void> Volume::check_boot(const Fields& boot) const {
  ASSIGN_OR_RETURN(const Block block, view_->block(0, (kBootSectors + 1) * sector_));
  const Fields region = block.fields();
  uint32_t sum = 0;
  for (size_t at = 0; at < kBootSectors * sector_; ++at) {
    if (at == 0x6A || at == 0x6B || at == 0x70) continue;
    sum = (sum << 31 | sum >> 1) + region.u8(at);
  }
  if (!is_right_checksum(region.le32(kBootSectors * sector_), sum))
    return doubt("the checksum of its boot sectors is wrong");
  if ((boot.le16(0x6A) & 2) != 0) return unclean("it was not shut down cleanly");
  if ((boot.le16(0x6A) & 4) != 0) return doubt("it has recorded errors of its device");
  return {};
}

Result<uint32_t> Volume::next(uint32_t cluster) const {
  ASSIGN_OR_RETURN(const Block entry, view_->block(fat_ + cluster * uint64_t{4}, 4));
  return entry.fields().le32(0);
}

Result<std::vector<uint32_t>> Volume::chain(uint32_t first, uint64_t most) const {
  std::vector<uint32_t> clusters;
  uint32_t at = first;
  while (is_cluster(at)) {
    if (clusters.size() == most) return doubt("a chain of clusters does not end");
    clusters.push_back(at);
    ASSIGN_OR_RETURN(at, next(at));
  }
  if (at < kEndOfChain || clusters.empty()) return doubt("a chain of clusters is broken");
  return clusters;
}

Result<void> Volume::read_root(Reading& reading) {
  ASSIGN_OR_RETURN(root_chain_, chain(root_, kMostRootClusters));
  for (const uint32_t cluster : root_chain_) {
    ASSIGN_OR_RETURN(const Block block, view_->block(place(cluster), cluster_));
    for (uint64_t at = 0; at < cluster_; at += kEntrySize) {
      const Fields entry = block.fields().part(at, kEntrySize);
      if (entry.u8(0) == 0) return {};
      if (entry.u8(0) == kBitmapEntry && (entry.u8(1) & 1) == active_) {
        bitmap_ = entry.le32(20);
        bitmap_size_ = entry.le64(24);
      }
      if (entry.u8(0) == kUpCaseEntry) {
        up_case_ = entry.le32(20);
        up_case_size_ = entry.le64(24);
      }
      if (entry.u8(0) == kLabelEntry)
        reading.label = utf16_text(entry.part(2, std::min<size_t>(entry.u8(1), 11) * 2));
    }
  }
  return {};
}

Result<Ranges> Volume::free_clusters(const std::vector<uint32_t>& of_bitmap) const {
  Ranges::Builder free;
  uint64_t first = 0;
  for (const uint32_t cluster : of_bitmap) {
    for (uint64_t at = 0; at < cluster_ && first < clusters_; at += kPiece) {
      const uint64_t bits = std::min(std::min(kPiece, cluster_ - at) * 8, clusters_ - first);
      ASSIGN_OR_RETURN(const Block block, view_->block(place(cluster) + at, divide_up(bits, 8)));
      add_clear_runs(block.bytes(), bits, first, free);
      first += bits;
    }
  }
  return free.take();
}

Result<std::vector<uint32_t>> Volume::up_case_clusters() const {
  if (up_case_ == 0 || up_case_size_ == 0 || up_case_size_ > kLargestUpCase)
    return doubt("its up-case table is damaged");
  return chain(up_case_, divide_up(up_case_size_, cluster_));
}

Result<Reading> Volume::read() {
  Reading reading;
  RETURN_IF_ERROR(read_root(reading));
  if (bitmap_ == 0) return doubt("it has no allocation bitmap");
  if (bitmap_size_ < divide_up(clusters_, 8)) return doubt("its allocation bitmap is too short");
  ASSIGN_OR_RETURN(const auto of_bitmap,
                   chain(bitmap_, divide_up(divide_up(clusters_, 8) + cluster_, cluster_)));
  if (of_bitmap.size() * cluster_ * 8 < clusters_)
    return doubt("its allocation bitmap is truncated");
  ASSIGN_OR_RETURN(const auto of_up_case, up_case_clusters());
  ASSIGN_OR_RETURN(const Ranges free, free_clusters(of_bitmap));
  for (const std::vector<uint32_t>* list : {&std::as_const(root_chain_), &of_bitmap, &of_up_case})
    for (const uint32_t cluster : *list)
      if (free.meets(cluster - kFirstCluster, cluster - kFirstCluster + 1))
        return doubt("its allocation bitmap marks metadata as free");
  reading.free = free.scaled(cluster_, heap_);
  reading.uuid = fmt::format("{:04X}-{:04X}", serial_ >> 16, serial_ & 0xFFFF);
  return reading;
}

Result<Reading> read(const ByteView& view) {
  ASSIGN_OR_RETURN(Volume volume, Volume::open(view));
  return volume.read();
}

}  // namespace

const Format kExfat{"exfat", probe, read};

}  // namespace vc::guest
