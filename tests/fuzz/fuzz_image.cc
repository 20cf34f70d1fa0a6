// libFuzzer target: takes any bytes as an image, maps it, and reads a part of it.
//
//     meson setup build-fuzz -Dfuzzers=true   (with CXX=clang++-19)
//     build-fuzz/tests/fuzz/fuzz_image CORPUS
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "qcow2/format/header.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"
#include "qcow2/read/qcow2_layer.h"
#include "qcow2/read/table_cache.h"
#include "tests/support/memory_storage.h"

using namespace vc;

namespace {

// An image can map terabytes with a few bytes, so the amount that is read is bounded.
constexpr size_t kExtents = 200;
constexpr uint64_t kPiece = 8192;

void look_at(const qcow2::Disk& disk) {
  if (disk.size() == 0) return;
  // From the start, and from the middle, where a table may end.
  for (const uint64_t begin : {uint64_t{0}, disk.size() / 2}) {
    std::vector<qcow2::Extent> extents;
    if (!disk.map(GuestOffset(begin), disk.size() - begin, extents, kExtents)) continue;
    uint64_t at = begin;
    std::vector<std::byte> piece;
    for (const qcow2::Extent& extent : extents) {
      if (extent.guest.value() != at || extent.length == 0) __builtin_trap();
      at += extent.length;
      piece.resize(std::min(extent.length, kPiece));
      // The result does not matter, as long as errors are returned.
      static_cast<void>(disk.read_extent(extent, extent.guest, piece).has_value());
    }
    if (at > disk.size()) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const auto storage =
      std::make_shared<qcow2::MemoryStorage>("fuzz", std::vector<std::byte>(bytes, bytes + size));
  static_cast<void>(crypto::LuksHeader::read_disk(*storage).has_value());
  auto header = qcow2::Header::read(*storage, qcow2::Header::Purpose::kUnlock);
  if (!header) return 0;
  static_cast<void>(qcow2::read_luks_header(*storage, *header).has_value());
  // An accepted header can be encoded again, or is reported as too large.
  static_cast<void>(header->encode().has_value());

  // The data file is normally a separate storage. Here it is the same one.
  std::shared_ptr<Storage> data_file;
  if (header->has_data_file()) data_file = storage;
  auto image = qcow2::Image::open(storage, std::move(*header), data_file,
                                  std::make_shared<qcow2::TableCache>(1 << 20));
  if (!image) return 0;
  std::vector<std::shared_ptr<qcow2::Layer>> layers;
  if (auto layer = qcow2::open_active_layer(*image)) layers.push_back(std::move(*layer));
  size_t snapshots = 0;
  for (const qcow2::Snapshot& snapshot : (*image)->snapshots()) {
    if (++snapshots > 4) break;
    if (auto layer = qcow2::open_snapshot_layer(*image, snapshot))
      layers.push_back(std::move(*layer));
  }
  for (const auto& layer : layers) look_at(qcow2::Disk({layer}));
  // A chain in which each layer is the backing file of the one before.
  if (layers.size() > 1) look_at(qcow2::Disk(layers));
  return 0;
}
