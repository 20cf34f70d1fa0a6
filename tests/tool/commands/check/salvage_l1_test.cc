// Salvages disks with a long L1 table that is damaged in part. The intact part is read, and agrees
// with a normal read.
#include <nlohmann/json.hpp>

#include "qcow2/check/finding.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/qcow2_layer.h"
#include "qcow2/read/salvage_layer.h"
#include "tests/catch_text.h"
#include "tests/interop/image_editor.h"
#include "tests/support/command_line.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/check/bad_sectors.h"

namespace vc::checks {

using interop::ImageEditor;
using support::run_ok;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSize = 64 * kMiB;
// Bytes that an L2 table maps, with clusters of 512 bytes.
constexpr uint64_t kReach = 32 << 10;
// The L1 table has four slices of 4 KiB.
constexpr uint64_t kEntries = kSize / kReach;
constexpr uint64_t kSector = 512;
constexpr uint64_t kEntriesInSector = kSector / 8;

using Bytes = std::vector<std::byte>;

// Makes data in each MiB.
std::string make_image(const support::TempDirectory& folder) {
  const std::string path = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "64M"});
  std::vector<std::string> command{"qemu-io", "-f", "qcow2"};
  for (int i = 0; i < 64; ++i)
    command.insert(command.end(), {"-c", "write -q -P " + std::to_string(i + 1) + " " +
                                             std::to_string(i) + "M 70k"});
  command.push_back(path);
  run_ok(command);
  return path;
}

Bytes raw_of(const support::TempDirectory& folder, const std::string& path) {
  run_ok({"qemu-img", "convert", "-O", "raw", path, folder / "good"});
  return support::read_file(folder / "good");
}

struct Salvaged {
  std::vector<qcow2::Loss> lost;
  Bytes bytes;
};

std::shared_ptr<qcow2::Image> open_damaged(const std::shared_ptr<Storage>& storage,
                                           const qcow2::Header& header) {
  auto image = qcow2::Image::open_damaged(storage, header, nullptr,
                                          std::make_shared<qcow2::TableCache>(1 << 20));
  REQUIRE_OK(image);
  return *image;
}

Salvaged salvage(const std::shared_ptr<Storage>& storage) {
  const auto header = qcow2::Header::read(*storage, qcow2::Header::Purpose::kSalvage);
  REQUIRE_OK(header);
  const auto losses = std::make_shared<qcow2::Losses>();
  const auto layer = qcow2::Qcow2SalvageLayer::open(open_damaged(storage, *header),
                                                    header->l1_table, header->l1_entries,
                                                    header->size, qcow2::Finding::kActive, losses);
  REQUIRE_OK(layer);
  const qcow2::Disk disk(std::vector<std::shared_ptr<qcow2::Layer>>{*layer});
  Salvaged salvaged;
  salvaged.bytes.resize(disk.size());
  REQUIRE_OK(disk.read(GuestOffset(0), salvaged.bytes));
  salvaged.lost = losses->list(disk.size());
  return salvaged;
}

// Requires that [begin, end) is lost for `reason` and reads as zeros, and that all other data is
// intact.
void check_lost(const Salvaged& salvaged, const Bytes& good, uint64_t begin, uint64_t end,
                qcow2::LossReason reason) {
  REQUIRE(salvaged.lost.size() == 1);
  CHECK(salvaged.lost[0] == qcow2::Loss{GuestOffset(begin), end - begin, reason});
  Bytes wanted = good;
  std::fill(wanted.begin() + static_cast<ptrdiff_t>(begin),
            wanted.begin() + static_cast<ptrdiff_t>(end), std::byte{0});
  CHECK((salvaged.bytes == wanted));
}

// Reads the disk through the cache of L1 tables, in pieces of `kReach`. Requires that readable data
// is intact. Returns the number of unreadable pieces.
uint64_t count_errors(const std::shared_ptr<Storage>& storage, const Bytes& good) {
  const auto header = qcow2::Header::read(*storage, qcow2::Header::Purpose::kSalvage);
  REQUIRE_OK(header);
  const auto layer = qcow2::open_active_layer(open_damaged(storage, *header));
  REQUIRE_OK(layer);
  const qcow2::Disk disk(std::vector<std::shared_ptr<qcow2::Layer>>{*layer});
  uint64_t errors = 0;
  Bytes piece(kReach);
  for (uint64_t at = 0; at < kSize; at += kReach) {
    if (!disk.read(GuestOffset(at), piece)) {
      ++errors;
      continue;
    }
    REQUIRE(std::equal(piece.begin(), piece.end(), good.begin() + static_cast<ptrdiff_t>(at)));
  }
  return errors;
}

}  // namespace

TEST_CASE("an unreadable sector of a long L1 table loses only what its entries map", "[salvage]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  const auto good = raw_of(folder, path);
  const ImageEditor image(path);
  // Inside, at the start and at the end of a slice.
  const uint64_t sector = GENERATE(0, 8, 13, 31);
  CAPTURE(sector);
  const uint64_t begin = image.get64(ImageEditor::kL1Offset) + sector * kSector;
  const auto storage =
      std::make_shared<BadSectors>(support::read_file(path), begin + 100, begin + 101);
  const uint64_t first = sector * kEntriesInSector * kReach;
  check_lost(salvage(storage), good, first, first + kEntriesInSector * kReach,
             qcow2::LossReason::kTable);
  // Without a salvage, a slice is either readable or not.
  CHECK(count_errors(storage, good) == kEntries / 4);
}

TEST_CASE("garbage in a long L1 table loses only what its entries map", "[salvage]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  const auto good = raw_of(folder, path);
  ImageEditor image(path);
  const uint64_t garbage = GENERATE(0x7fffffffffffffff, 0x80fffffffffffeff);
  for (uint64_t i = 700; i < 900; ++i)
    image.put64(image.get64(ImageEditor::kL1Offset) + i * 8, garbage);
  const auto storage = std::make_shared<qcow2::MemoryStorage>("garbage", image.bytes());
  check_lost(salvage(storage), good, 700 * kReach, 900 * kReach, qcow2::LossReason::kEntry);
  CHECK(count_errors(storage, good) == 200);
}

TEST_CASE("a long L1 table that is truncated by the end of the file is read up to there",
          "[salvage]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder);
  const auto good = raw_of(folder, path);
  ImageEditor image(path);
  const uint64_t old = image.get64(ImageEditor::kL1Offset);
  // Moves the table to the end of the file, and truncates it to 1000 entries.
  const uint64_t cut = (image.bytes().size() + kSector - 1) / kSector * kSector;
  image.put64(ImageEditor::kL1Offset, cut);
  image.bytes().resize(cut + 1000 * 8);
  std::copy_n(image.bytes().begin() + static_cast<ptrdiff_t>(old), 1000 * 8,
              image.bytes().begin() + static_cast<ptrdiff_t>(cut));
  check_lost(salvage(std::make_shared<qcow2::MemoryStorage>("cut", image.bytes())), good,
             1000 * kReach, kSize, qcow2::LossReason::kTable);

  // The command reports the same.
  image.save_as(folder / "cut");
  const std::string tool = tool_test::virt_compact();
  const auto plain = support::run({tool, "copy", folder / "cut", folder / "copy"});
  INFO(plain.describe());
  CHECK(plain.exit_code == 1);
  CHECK_THAT(plain.err, Catch::Contains("the L1 table"));
  const auto done =
      support::run({tool, "copy", "--salvage", "--json", folder / "cut", folder / "copy"});
  INFO(done.describe());
  CHECK(done.exit_code == 4);
  const auto json = nlohmann::json::parse(done.out);
  REQUIRE(json["lost"].size() == 1);
  CHECK(json["lost"][0]["start"] == 1000 * kReach);
  CHECK(json["lost"][0]["length"] == kSize - 1000 * kReach);
  CHECK(json["lost"][0]["reason"] == "table-unreadable");
  CHECK(json["lost-bytes"] == kSize - 1000 * kReach);
}

}  // namespace vc::checks
