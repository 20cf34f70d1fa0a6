// libFuzzer target: takes any bytes as a guest's volume of the format FUZZ_GUEST or, without a
// format, as a disk. Free space must be within the volume, and a doubtful volume must have none.
// Droppable files must neither be free nor share a byte. This build accepts every checksum.
//
// An input is a sparse volume: its size in MiB (2 bytes), then records of a sector number (4
// bytes), a number of sectors (1 byte) and as many sectors of 512 bytes. All else is zeros.
//
//     meson setup build-fuzz -Dfuzzers=true   (with CXX=clang++-19)
//     tests/fuzz/guest_seeds build-fuzz/tests/fuzz CORPUS
//     build-fuzz/tests/fuzz/fuzz_guest_ext CORPUS/ext
//
// fuzz_guest_ext --seed FILE SEED writes to SEED, as an input, the sectors of FILE that the reader
// reads.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "guest/filesystem/btrfs.h"
#include "guest/filesystem/exfat.h"
#include "guest/filesystem/ext.h"
#include "guest/filesystem/fat.h"
#include "guest/filesystem/ntfs/ntfs.h"
#include "guest/filesystem/swap.h"
#include "guest/filesystem/xfs.h"
#include "guest/inspection.h"
#include "guest/layout/partition_table.h"
#include "guest/layout/physical_volume.h"

using namespace vc;

namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kMiB = 1 << 20;
constexpr size_t kHeader = 2;
constexpr size_t kRecordHeader = 5;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

class SparseVolume final : public guest::DiskView {
 public:
  SparseVolume(const uint8_t* data, size_t size) : DiskView(0) {
    if (size < kHeader) return;
    size_ = (data[0] | uint64_t{data[1]} << 8) * kMiB;
    for (size_t at = kHeader; at + kRecordHeader < size;) {
      uint32_t sector = 0;
      std::memcpy(&sector, data + at, sizeof sector);
      const size_t count = data[at + 4];
      at += kRecordHeader;
      for (size_t i = 0; i < count && at < size; ++i) {
        auto& bytes = sectors_[uint64_t{sector} + i];
        bytes.assign(kSector, std::byte{0});
        std::memcpy(bytes.data(), data + at, std::min<size_t>(kSector, size - at));
        at += kSector;
      }
    }
  }

  uint64_t size() const override { return size_; }

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override {
    std::fill(to.begin(), to.end(), std::byte{0});
    const uint64_t end = at + to.size();
    for (auto it = sectors_.lower_bound(at / kSector); it != sectors_.end(); ++it) {
      const uint64_t begin = it->first * kSector;
      if (begin >= end) break;
      const uint64_t from = std::max(begin, at);
      const uint64_t length = std::min(begin + kSector, end) - from;
      std::memcpy(to.data() + (from - at), it->second.data() + (from - begin), length);
    }
    return {};
  }

  uint64_t size_ = 0;
  std::map<uint64_t, std::vector<std::byte>> sectors_;
};

void check_ranges(const guest::Ranges& ranges, uint64_t size) {
  uint64_t end = 0;
  for (const guest::Range& range : ranges.all()) {
    require(range.begin < range.end && range.end <= size);
    require(range.begin > end || (range.begin == 0 && end == 0));
    end = range.end;
  }
}

[[maybe_unused]] constexpr guest::FileKinds kAllFiles{
    .pagefile = true, .swapfile = true, .hiberfile = true, .swap = true};

#ifdef FUZZ_GUEST
// The contents of a droppable file belong to it alone, and each byte to one file.
void check_files(const guest::ByteView& view, const guest::Ranges& free) {
  if (guest::FUZZ_GUEST.find == nullptr) return;
  const auto files = guest::FUZZ_GUEST.find(view, free, kAllFiles);
  if (!files) {
    require(!files.error().message().empty());
    return;
  }
  guest::Ranges::Builder together;
  uint64_t sum = 0;
  for (const guest::FoundFile& file : *files) {
    check_ranges(file.contents, view.size());
    require(!file.path.empty() && file.contents.within(free).empty());
    for (const guest::Range& range : file.contents.all()) together.add(range.begin, range.end);
    sum += file.contents.total();
  }
  require(together.take().total() == sum);
}

void run(const std::shared_ptr<const guest::ByteView>& view) {
  const auto head = view->block(0, std::min(view->size(), guest::kHeadSize));
  if (!head || !guest::FUZZ_GUEST.probe(head->fields())) return;
  const auto reading = guest::FUZZ_GUEST.read(*view);
  if (!reading) {
    require(!reading.error().message().empty());
    return;
  }
  const bool is_free = reading->verdict == guest::Reading::Verdict::kFree;
  require(is_free == reading->why.empty());
  require(is_free || reading->free.empty());
  check_ranges(reading->free, view->size());
  if (is_free) check_files(*view, reading->free);
}
#elif defined(FUZZ_LVM)
void run(const std::shared_ptr<const guest::ByteView>& view) {
  if (const auto member = guest::PhysicalVolume::read(*view))
    check_ranges(member->free, view->size());
}
#else
void check_disk(const std::shared_ptr<const guest::ByteView>& view) {
  const auto inspection = guest::inspect({view}, kAllFiles);
  check_ranges(inspection.free_on(0), view->size());
  uint64_t sum = 0;
  for (const guest::Volume& volume : inspection.volumes) {
    const bool is_free = volume.verdict == guest::Reading::Verdict::kFree;
    require(is_free == volume.why.empty());
    uint64_t free = 0;
    for (const guest::Ranges& ranges : volume.on_disks) {
      check_ranges(ranges, view->size());
      free += ranges.total();
    }
    require(free == volume.free && (is_free || free == 0));
    require(is_free || volume.files.empty());
    for (const guest::VolumeFile& file : volume.files) {
      check_ranges(file.on_disks.at(0), view->size());
      require(file.on_disks.at(0).within(volume.on_disks.at(0)).empty());
    }
    sum += free;
  }
  // No byte is free in two volumes.
  require(sum == inspection.free_on(0).total());
}

void run(const std::shared_ptr<const guest::ByteView>& view) {
  if (const auto table = guest::read_partition_table(*view)) {
    for (const guest::Partition& it : table->partitions)
      require(it.length <= view->size() && it.begin <= view->size() - it.length);
  }
  check_disk(view);
}
#endif

// A file that records which of its sectors were read and were not zeros.
class RecordedFile final : public guest::DiskView {
 public:
  explicit RecordedFile(const char* path) : DiskView(0), file_(path, std::ios::binary) {
    file_.seekg(0, std::ios::end);
    size_ = static_cast<uint64_t>(file_.tellg()) / kMiB * kMiB;
  }

  uint64_t size() const override { return size_; }

  std::string input() const {
    const uint64_t mebibytes = size_ / kMiB;
    std::string out{static_cast<char>(mebibytes & 0xFF), static_cast<char>(mebibytes >> 8)};
    for (auto it = read_.begin(); it != read_.end();) {
      const auto first = it;
      uint32_t count = 0;
      while (it != read_.end() && it->first == first->first + count && count < 255) {
        ++it;
        ++count;
      }
      const auto sector = static_cast<uint32_t>(first->first);
      out.append(reinterpret_cast<const char*>(&sector), sizeof sector);
      out.push_back(static_cast<char>(count));
      for (auto from = first; from != it; ++from) out += from->second;
    }
    return out;
  }

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override {
    const uint64_t first = at / kSector;
    std::string sectors((at + to.size() - first * kSector + kSector - 1) / kSector * kSector, '\0');
    file_.seekg(static_cast<std::streamoff>(first * kSector));
    file_.read(sectors.data(), static_cast<std::streamsize>(sectors.size()));
    std::memcpy(to.data(), sectors.data() + at % kSector, to.size());
    const std::string zeros(kSector, '\0');
    for (uint64_t i = 0; i < sectors.size(); i += kSector)
      if (sectors.compare(i, kSector, zeros) != 0)
        read_[first + i / kSector] = sectors.substr(i, kSector);
    return {};
  }

  mutable std::ifstream file_;
  uint64_t size_ = 0;
  mutable std::map<uint64_t, std::string> read_;  // by the number of the sector
};

}  // namespace

// Blocks of a volume are large, and fresh memory for each is slow.
extern "C" const char* __asan_default_options() {
  return "quarantine_size_mb=1:thread_local_quarantine_size_kb=64";
}

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  if (*argc != 4 || std::string((*argv)[1]) != "--seed") return 0;
  const auto file = std::make_shared<RecordedFile>((*argv)[2]);
  run(file);
  std::ofstream((*argv)[3], std::ios::binary) << file->input();
  std::exit(0);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run(std::make_shared<SparseVolume>(data, size));
  return 0;
}
