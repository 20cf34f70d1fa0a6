// The memory of a server does not grow with the exports that clients have open.
#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <vector>

#include "base/byte_order.h"
#include "tests/catch.h"
#include "tests/interop/nbd_client.h"
#include "tests/plugin/served_disk.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using interop::NbdClient;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr unsigned kSnapshots = 60;
// Bytes that an L2 table maps, with clusters of 512 bytes. The disk has 128 GiB.
constexpr uint64_t kReach = 32 << 10;
constexpr uint64_t kEntries = 4 << 20;
constexpr uint64_t kL1Bytes = kEntries * 8;
constexpr uint64_t kEntriesRead = kEntries / 32;

// Writes consecutive big-endian fields.
class Fields {
 public:
  Fields& u64(uint64_t value) { return add(value, 8); }
  Fields& u32(uint64_t value) { return add(value, 4); }
  Fields& u16(uint64_t value) { return add(value, 2); }
  Fields& text(const std::string& value) {
    for (const char it : value) bytes_.push_back(std::byte(it));
    return *this;
  }
  void align() { bytes_.resize((bytes_.size() + 7) / 8 * 8); }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  Fields& add(uint64_t value, unsigned size) {
    while (size-- > 0) bytes_.push_back(std::byte(value >> (8 * size)));
    return *this;
  }
  std::vector<std::byte> bytes_;
};

uint64_t load(const std::string& path, uint64_t at) {
  std::ifstream file(path, std::ios::binary);
  std::array<std::byte, 8> bytes{};
  file.seekg(static_cast<std::streamoff>(at));
  file.read(reinterpret_cast<char*>(bytes.data()), 8);
  return load_be64(bytes.data());
}

// Returns the L1 entry of the only data of snapshot `i`.
uint64_t entry_of(unsigned i) {
  return 3'000'000 + i;
}

// Each snapshot, and the disk, has an L1 table of 32 MiB, which is mostly a hole of the file. QEMU
// would take half a minute to make each.
std::string make_image(const support::TempDirectory& folder) {
  const std::string path = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "1M"});
  test::qemu_io(path, {"write -q -P 0x77 0 32k"});
  const uint64_t l2 = load(path, load(path, 40));  // the L1 table's offset is at 40
  constexpr uint64_t kTable = 128 * kMiB;
  constexpr uint64_t kFirstL1 = 256 * kMiB;
  support::resize_file(path, kFirstL1 + (kSnapshots + 1) * kL1Bytes);
  Fields table;
  for (unsigned i = 0; i < kSnapshots; ++i) {
    const std::string id = std::to_string(i + 1);
    const uint64_t l1 = kFirstL1 + i * kL1Bytes;
    table.u64(l1).u32(kEntries).u16(id.size()).u16(id.size() + 1);
    table.u64(0).u64(0).u32(0).u32(16);   // times, no VM state, extra data
    table.u64(0).u64(kEntries * kReach);  // its VM state, the disk's size
    table.text(id).text("s" + id).align();
    support::patch_file(path, l1 + entry_of(i) * 8, Fields().u64(l2).bytes());
  }
  support::patch_file(path, kTable, table.bytes());
  // The disk's own table is empty.
  support::patch_file(path, 24, Fields().u64(kEntries * kReach).bytes());
  support::patch_file(path, 36,
                      Fields().u32(kEntries).u64(kFirstL1 + kSnapshots * kL1Bytes).bytes());
  support::patch_file(path, 60, Fields().u32(kSnapshots).u64(kTable).bytes());
  return path;
}

// Returns the peak of resident memory, bytes.
uint64_t peak_memory(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::stoull(line.substr(6)) << 10;
  return 0;
}

}  // namespace

TEST_CASE("60 exports with L1 tables of 32 MiB are served in little memory", "[plugin]") {
  const support::TempDirectory folder;
  auto server = test::serve({"-r", make_image(folder)});
  std::vector<NbdClient> clients;
  for (unsigned i = 0; i < kSnapshots; ++i) {
    CAPTURE(i);
    clients.emplace_back(server.socket(), "snapshot:s" + std::to_string(i + 1));
    REQUIRE(clients.back().size() == kEntries * kReach);
    // Reads a large part of the table.
    const uint64_t begin = entry_of(i) / kEntriesRead * kEntriesRead * kReach;
    const auto status = clients.back().block_status(begin, kEntriesRead * kReach);
    const auto data = std::count_if(status.begin(), status.end(),
                                    [](const NbdClient::Status& it) { return !it.hole; });
    CHECK(data == 1);
  }
  // All exports are open, and each reads its own data.
  for (unsigned i = 0; i < kSnapshots; ++i) {
    CAPTURE(i);
    CHECK(clients[i].read(entry_of(i) * kReach, 1).front() == std::byte{0x77});
    CHECK(clients[i].read((entry_of(i) + 1) * kReach, 1).front() == std::byte{0});
  }
  const uint64_t peak = peak_memory(server.process().pid());
  INFO(peak / kMiB << " MiB");
  REQUIRE(peak > 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // All tables together have 1.9 GiB.
  CHECK(peak < 200 * kMiB);
#endif
}
