// libFuzzer target: takes any bytes as an image, and writes to it or changes its snapshots. The
// first byte selects the operation.
//
//     meson setup build-fuzz -Dfuzzers=true   (with CXX=clang++-19)
//     build-fuzz/tests/fuzz/fuzz_writer CORPUS
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "qcow2/write/disk_writer.h"
#include "qcow2/write/snapshot_editor.h"
#include "tests/fuzz/bounded_storage.h"

using namespace vc;

namespace {

// Checks that written data is read back, whatever else the image contains. Compares only one
// cluster, since several may be at the same offset.
void write_and_read(qcow2::DiskWriter& disk, uint64_t at, uint64_t length, uint8_t pattern) {
  if (disk.size() == 0) return;
  at = std::min(at, disk.size() - 1);
  length = std::min(length, disk.size() - at);
  const std::vector<std::byte> bytes(length, std::byte(pattern));
  if (!disk.write(GuestOffset(at), bytes)) return;
  const uint64_t cluster = disk.image().geometry().cluster_size();
  if (at / cluster != (at + length - 1) / cluster) return;
  std::vector<std::byte> back(length);
  if (!disk.read(GuestOffset(at), back)) return;
  if (back != bytes) __builtin_trap();
}

void write_disk(const std::shared_ptr<Storage>& storage, bool unmap) {
  auto header = qcow2::Header::read(*storage);
  if (!header || header->has_data_file() || !header->backing_file.empty()) return;
  auto disk = qcow2::DiskWriter::open(storage, std::move(*header), nullptr, {},
                                      std::make_shared<qcow2::TableCache>(1 << 20), {});
  if (!disk) return;
  const uint64_t size = (*disk)->size();
  write_and_read(**disk, 0, 512, 1);
  write_and_read(**disk, 0, 4096, 5);
  write_and_read(**disk, size / 2, 70000, 2);
  static_cast<void>((*disk)->discard(GuestOffset(0), std::min<uint64_t>(size, 1 << 20)));
  write_and_read(**disk, size, 1, 3);
  static_cast<void>((*disk)->flush().has_value());
  static_cast<void>(
      (*disk)->zero(GuestOffset(0), std::min<uint64_t>(size, 300000), unmap).has_value());
  write_and_read(**disk, 65536, 100, 4);
  static_cast<void>((*disk)->close().has_value());
}

void change_snapshots(const std::shared_ptr<Storage>& storage, unsigned how) {
  auto editor = qcow2::SnapshotEditor::open(storage);
  if (!editor) return;
  const auto& snapshots = (*editor)->snapshots();
  const std::string first = snapshots.empty() ? "" : snapshots.front().id;
  Result<void> done;
  if (how == 0) {
    if (!(*editor)->create("fuzz", {})) return;
  } else if (how == 1) {
    done = (*editor)->remove(first);
  } else {
    done = (*editor)->apply(first);
  }
  if (done) static_cast<void>((*editor)->close().has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const auto storage = std::make_shared<fuzz::BoundedStorage>(data + 1, size - 1);
  if (data[0] % 5 < 2)
    write_disk(storage, data[0] % 5 == 1);
  else
    change_snapshots(storage, data[0] % 5 - 2);
  return 0;
}
