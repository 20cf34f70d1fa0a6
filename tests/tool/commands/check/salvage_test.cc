// Copies disks out of damaged images. All data outside of the list of losses is intact.
#include <functional>
#include <nlohmann/json.hpp>

#include "qcow2/check/finding.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/salvage_layer.h"
#include "tests/catch_text.h"
#include "tests/interop/image_editor.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/check/bad_sectors.h"

namespace vc::checks {

using interop::ImageEditor;
using support::run_ok;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kOffset = 0x00fffffffffffe00;

support::Outcome copy(std::vector<std::string> arguments) {
  std::vector<std::string> command{tool_test::virt_compact(), "copy"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return support::run(command);
}

// Makes plain and compressed data, holes, a snapshot and a bitmap, in clusters of 4 KiB.
std::string make_image(const support::TempDirectory& folder, const std::string& options) {
  const std::string path = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "16M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 17 0 5M", "-c", "write -q -P 18 6M 900k",
          "-c", "write -q -c -P 19 8M 64k", "-c", "write -q -c -P 20 8256k 64k", "-c",
          "write -q -P 21 12M 3M", path});
  return path;
}

struct Salvaged {
  int exit_code = -1;
  uint64_t lost = 0;  // bytes
  std::vector<std::string> reasons;
  bool has(const std::string& reason) const {
    return std::find(reasons.begin(), reasons.end(), reason) != reasons.end();
  }
};

// Salvages the image, and compares it with its original content.
Salvaged salvage(const support::TempDirectory& folder, const std::string& path,
                 const std::vector<std::byte>& good, std::vector<std::string> how = {}) {
  const std::string copied = folder / "salvaged";
  std::vector<std::string> arguments{"--salvage", "--verify", "--json", "--force"};
  arguments.insert(arguments.end(), how.begin(), how.end());
  arguments.insert(arguments.end(), {path, copied});
  const auto done = copy(arguments);
  INFO(done.describe());
  Salvaged result;
  result.exit_code = done.exit_code;
  REQUIRE((done.exit_code == 0 || done.exit_code == 4));
  run_ok({"qemu-img", "check", "-q", copied});
  run_ok({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", copied, folder / "raw"});
  auto bytes = support::read_file(folder / "raw");
  REQUIRE(bytes.size() == good.size());
  const auto json = nlohmann::json::parse(done.out);
  uint64_t end = 0;
  for (const auto& it : json["lost"]) {
    const uint64_t start = it["start"], length = it["length"];
    CHECK(start >= end);
    end = start + length;
    REQUIRE(end <= bytes.size());
    result.lost += length;
    result.reasons.push_back(it["reason"]);
    const auto from = bytes.begin() + static_cast<ptrdiff_t>(start);
    const auto stop = from + static_cast<ptrdiff_t>(length);
    CHECK(std::all_of(from, stop, [](std::byte b) { return b == std::byte{0}; }));
    std::copy_n(good.begin() + static_cast<ptrdiff_t>(start), length, from);
  }
  CHECK(json["lost-bytes"] == result.lost);
  CHECK((result.exit_code == 4) == (result.lost > 0));
  CHECK((bytes == good));
  return result;
}

std::vector<std::byte> raw_of(const support::TempDirectory& folder, const std::string& path) {
  run_ok({"qemu-img", "convert", "-O", "raw", path, folder / "good"});
  return support::read_file(folder / "good");
}

uint64_t table_of(const ImageEditor& image, uint64_t guest) {
  return image.get64(image.l1_entry_at(guest)) & kOffset;
}

void fill(ImageEditor& image, uint64_t at, uint64_t length, support::Random& random) {
  for (uint64_t i = 0; i < length; ++i)
    image.bytes()[at + i] = std::byte(static_cast<uint8_t>(random.below(256)));
}

void zero(ImageEditor& image, uint64_t at, uint64_t length) {
  std::fill_n(image.bytes().begin() + static_cast<ptrdiff_t>(at), length, std::byte{0});
}

}  // namespace

namespace {

struct Damage {
  const char* name;
  const char* reason;
  uint64_t most;  // most clusters that may be lost; 0: any number
  bool told;      // a copy without the option is an error
  std::function<void(ImageEditor&, support::Random&)> make;
};

uint64_t l1_bytes(const ImageEditor& image) {
  return uint64_t{image.get32(ImageEditor::kL1Size)} * 8;
}

const std::vector<Damage>& damages() {
  static const std::vector<Damage> all{
      {"an L2 table of zeros", "references-lost", 0, false,
       [](ImageEditor& it, support::Random&) { zero(it, table_of(it, 0), it.cluster_size()); }},
      {"an L2 table of anything", "entry-invalid", 0, false,
       [](ImageEditor& it, support::Random& random) {
         fill(it, table_of(it, 0), it.cluster_size(), random);
       }},
      {"an L2 entry that is no place", "entry-invalid", 1, true,
       [](ImageEditor& it, support::Random&) {
         it.put64(it.l2_entry_at(kMiB), it.get64(it.l2_entry_at(kMiB)) + 512);
       }},
      {"an L2 entry past the end", "past-end", 1, true,
       [](ImageEditor& it, support::Random&) {
         it.put64(it.l2_entry_at(kMiB), 0x8000000070000000);
       }},
      {"an L2 entry that leads to the L1 table", "overlap", 1, false,
       [](ImageEditor& it, support::Random&) {
         it.put64(it.l2_entry_at(kMiB), it.get64(ImageEditor::kL1Offset) | 1ull << 63);
       }},
      {"compressed data of anything", "stream-damaged", 16, true,
       [](ImageEditor& it, support::Random&) {
         // A block of an invalid type.
         it.bytes()[it.get64(it.l2_entry_at(8 * kMiB)) & 0xffffffff] = std::byte{0xff};
       }},
      {"a compressed descriptor past the end", "stream-damaged", 1, true,
       [](ImageEditor& it, support::Random&) {
         it.put64(it.l2_entry_at(8 * kMiB), 0x4000000070000000);
       }},
      {"an L1 table of zeros", "references-lost", 0, false,
       [](ImageEditor& it, support::Random&) {
         zero(it, it.get64(ImageEditor::kL1Offset), l1_bytes(it));
       }},
      {"an L1 table of anything", "entry-invalid", 0, false,
       [](ImageEditor& it, support::Random& random) {
         fill(it, it.get64(ImageEditor::kL1Offset), l1_bytes(it), random);
         it.put64(it.get64(ImageEditor::kL1Offset), 0x1000000000000200);
       }},
      {"an L1 entry past the end", "table-unreadable", 0, true,
       [](ImageEditor& it, support::Random&) {
         it.put64(it.get64(ImageEditor::kL1Offset), 0x8000000070000000);
       }},
      {"an L1 table past the end", "table-unreadable", 0, true,
       [](ImageEditor& it, support::Random&) { it.put64(ImageEditor::kL1Offset, 0x70000000); }},
      {"an L1 table that is too short", "table-unreadable", 0, true,
       [](ImageEditor& it, support::Random&) { it.put32(ImageEditor::kL1Size, 0); }},
      {"the end of the file is missing", "past-end", 0, true,
       [](ImageEditor& it, support::Random&) {
         it.bytes().resize(it.bytes().size() * 2 / 3 + 100);
       }}};
  return all;
}

}  // namespace

TEST_CASE("the list of losses is exact for each damaged table", "[salvage]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  support::Random random(seed);
  for (const char* const options :
       {"cluster_size=4k", "cluster_size=16k,extended_l2=on", "cluster_size=64k"}) {
    const support::TempDirectory folder;
    const std::string made = make_image(folder, options);
    const auto good = raw_of(folder, made);
    for (const Damage& damage : damages()) {
      INFO(options << ": " << damage.name);
      ImageEditor image(made);
      damage.make(image, random);
      const std::string path = folder / "damaged";
      image.save_as(path);
      if (damage.told) CHECK(copy({path, folder / "plain"}).exit_code == 1);
      for (const bool compressed : {false, true}) {
        const auto done = salvage(folder, path, good,
                                  compressed ? std::vector<std::string>{"-c", "-o", options}
                                             : std::vector<std::string>());
        CHECK(done.has(damage.reason));
        CHECK(done.lost > 0);
        if (damage.most > 0) CHECK(done.lost <= damage.most * image.cluster_size());
      }
    }
  }
}

TEST_CASE("damage of unneeded structures loses no data", "[salvage]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=4k");
  run_ok({"qemu-img", "snapshot", "-c", "s", path});
  run_ok({"qemu-img", "bitmap", "--add", path, "b"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 1M 1M", path});
  const auto good = raw_of(folder, path);
  ImageEditor image(path);
  const auto* const damage =
      GENERATE("nothing", "snapshot table", "snapshot count", "snapshot offset", "refcount table",
               "refcount offset", "refcount clusters", "refcount order", "bitmaps", "extension",
               "header length", "compression bit", "dirty", "corrupt", "magic", "version");
  INFO(damage);
  const std::string it = damage;
  const auto all_ones = [&](uint64_t at, uint64_t length) {
    std::fill_n(image.bytes().begin() + static_cast<ptrdiff_t>(at), length, std::byte{0xff});
  };
  if (it == "snapshot table") all_ones(image.get64(ImageEditor::kSnapshotOffset), 100);
  if (it == "snapshot count") image.put32(ImageEditor::kSnapshotCount, 0xffffffff);
  if (it == "snapshot offset") image.put64(ImageEditor::kSnapshotOffset, 12345);
  if (it == "refcount table") all_ones(image.get64(ImageEditor::kRefcountTableOffset), 64);
  if (it == "refcount offset") image.put64(ImageEditor::kRefcountTableOffset, 7);
  if (it == "refcount clusters") image.put32(ImageEditor::kRefcountTableClusters, 0);
  if (it == "refcount order") image.put32(ImageEditor::kRefcountOrder, 99);
  if (it == "extension") image.put32(image.get32(ImageEditor::kHeaderLength) + 4, 0xffffffff);
  if (it == "header length") image.put32(ImageEditor::kHeaderLength, 5);
  if (it == "compression bit") image.put64(ImageEditor::kIncompatible, 8);
  if (it == "magic") image.put32(0, 0);
  if (it == "version") image.put32(ImageEditor::kVersion, 0x3000000);
  if (it == "dirty") image.put64(ImageEditor::kIncompatible, 1);
  if (it == "corrupt") image.put64(ImageEditor::kIncompatible, 2);
  if (it == "bitmaps")
    for (const auto& extension : image.extensions())
      if (extension.type == 0x23852875) {
        uint64_t directory = 0;
        for (size_t i = 16; i < 24; ++i)
          directory = directory << 8 | std::to_integer<uint64_t>(extension.data[i]);
        all_ones(directory, 40);
      }
  image.save();
  CHECK(salvage(folder, path, good, {"-f", "qcow2"}).exit_code == 0);
}

TEST_CASE("a salvage of a chain asks each image for its own part", "[salvage]") {
  const support::TempDirectory folder;
  const std::string base = make_image(folder, "cluster_size=4k");
  const std::string path = folder / "overlay";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 1M 512k", path});
  const auto good = raw_of(folder, path);
  ImageEditor image(base);
  zero(image, table_of(image, 0), image.cluster_size());
  image.save();
  const auto done = salvage(folder, path, good);
  CHECK(done.exit_code == 4);
  // A table maps 2 MiB. The overlay's own data in this range is intact.
  CHECK(done.lost == 2 * kMiB - (512 << 10));
}

TEST_CASE("a snapshot's disk is salvaged", "[salvage]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=4k");
  const auto good = raw_of(folder, path);
  run_ok({"qemu-img", "snapshot", "-c", "s", path});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 0 2M", path});
  ImageEditor image(path);
  const uint64_t l1 = image.get64(image.get64(ImageEditor::kSnapshotOffset));
  image.put64(l1, 0x70000000);
  image.save();
  const auto done = salvage(folder, path, good, {"--snapshot", "s"});
  CHECK(done.lost == 2 * kMiB);
}

TEST_CASE("losses are reported as text and as JSON", "[salvage]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=4k");
  ImageEditor image(path);
  image.put64(image.l2_entry_at(kMiB), 0x8000000070000000);
  image.save();
  const auto done = copy({"--salvage", path, folder / "copied"});
  INFO(done.describe());
  CHECK(done.exit_code == 4);
  CHECK_THAT(done.err, Catch::Contains("guest offset 0x100000, 4096 bytes: lies past the end"));
  CHECK_THAT(done.out, Catch::Contains("lost: 4 KiB in 1 range"));
  const auto pipe = copy({"--salvage", "nbd://localhost/", folder / "x"});
  CHECK(pipe.exit_code == 1);
  CHECK_THAT(pipe.err, Catch::Contains("--salvage: SRC must be a file"));
}

TEST_CASE("a comparison skips lost ranges", "[salvage]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=4k");
  const auto good = raw_of(folder, path);
  ImageEditor image(path);
  image.put64(image.l2_entry_at(kMiB), 0x8000000070000000);
  image.save();
  const auto compare = [&](const std::vector<std::string>& how) {
    std::vector<std::string> command{tool_test::virt_compact(), "compare"};
    command.insert(command.end(), how.begin(), how.end());
    command.insert(command.end(), {path, folder / "good"});
    return support::run(command);
  };
  CHECK(compare({}).exit_code == 4);
  const auto same = compare({"--salvage"});
  INFO(same.describe());
  CHECK(same.exit_code == 4);
  CHECK_THAT(same.out, Catch::Contains("identical except for lost ranges"));
  CHECK_THAT(same.err, Catch::Contains("guest offset 0x100000, 4096 bytes"));
  const auto json = nlohmann::json::parse(compare({"--salvage", "--json"}).out);
  CHECK(json["identical"] == true);
  CHECK(json["lost-in-a"][0]["length"] == 4096);
  CHECK(json["lost-in-b"].empty());
  // Elsewhere, a difference is reported.
  image.put64(image.l2_entry_at(2 * kMiB), 0);
  image.save();
  CHECK(compare({"--salvage"}).exit_code == 1);
  CHECK(compare({"--salvage", "-s"}).exit_code == 2);
}

TEST_CASE("each command advises a salvage of a damaged image", "[salvage]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=4k");
  ImageEditor image(path);
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), tool_test::virt_compact());
    return support::run(arguments);
  };
  constexpr const char* kAdvice = "virt-compact copy --salvage copies the readable data";
  CHECK_THAT(run({"check", path}).out, !Catch::Contains("salvage"));

  SECTION("an L2 table past the end of the file") {
    image.put64(image.get64(ImageEditor::kL1Offset), 0x8000000070000000);
    image.save();
    const auto checked = run({"check", path});
    CHECK_THAT(checked.out, Catch::Contains(kAdvice));
    // They are the data of that table.
    CHECK_THAT(checked.out, Catch::Contains("leaked clusters were found on the image.\n"
                                            "They may hold data of the guest"));
    const auto planned = run({"check", "-r", "all", "--dry-run", path}).out;
    CHECK(planned.find(kAdvice) != std::string::npos);
    CHECK(planned.find(kAdvice) == planned.rfind(kAdvice));
    CHECK_THAT(copy({path, folder / "x"}).err, Catch::Contains(kAdvice));
    CHECK_THAT(run({"flatten", path, folder / "x"}).err, Catch::Contains(kAdvice));
    CHECK_THAT(run({"compare", path, path}).err,
               Catch::Contains("--salvage compares the readable data"));
  }
  SECTION("compressed data that cannot be decoded") {
    image.bytes()[image.get64(image.l2_entry_at(8 * kMiB)) & 0xffffffff] = std::byte{0xff};
    image.save();
    CHECK_THAT(run({"check", path}).out, !Catch::Contains("salvage"));
    CHECK_THAT(run({"check", "--deep", path}).out, Catch::Contains(kAdvice));
    CHECK_THAT(copy({path, folder / "x"}).err, Catch::Contains(kAdvice));
  }
  SECTION("leaks alone") {
    run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", path});
    ImageEditor leaking(path);
    leaking.put64(leaking.l2_entry_at(0), 0);
    leaking.save();
    const auto checked = run({"check", path});
    CHECK(checked.exit_code == 3);
    CHECK_THAT(checked.out, Catch::Contains("They take space, but do no harm to data."));
    CHECK_THAT(checked.out, !Catch::Contains("salvage"));
  }
}

TEST_CASE("bad sectors lose only their own data", "[salvage]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=64k");
  const auto good = raw_of(folder, path);
  const ImageEditor image(path);
  const bool table = GENERATE(false, true);
  const uint64_t begin =
      table ? table_of(image, 0) + 512 : (image.get64(image.l2_entry_at(kMiB)) & kOffset) + 8192;
  const auto storage =
      std::make_shared<BadSectors>(support::read_file(path), begin, begin + (table ? 512 : 1000));
  auto header = qcow2::Header::read(*storage, qcow2::Header::Purpose::kSalvage);
  REQUIRE_OK(header);
  auto opened = qcow2::Image::open_damaged(storage, *header, nullptr,
                                           std::make_shared<qcow2::TableCache>(1 << 20));
  REQUIRE_OK(opened);
  const auto losses = std::make_shared<qcow2::Losses>();
  auto layer = qcow2::Qcow2SalvageLayer::open(*opened, header->l1_table, header->l1_entries,
                                              header->size, qcow2::Finding::kActive, losses);
  REQUIRE_OK(layer);
  const qcow2::Disk disk(std::vector<std::shared_ptr<qcow2::Layer>>{*layer});
  std::vector<std::byte> bytes(disk.size());
  REQUIRE_OK(disk.read(GuestOffset(0), bytes));
  const auto lost = losses->list(disk.size());
  REQUIRE(lost.size() == 1);
  if (table) {
    // 64 entries.
    CHECK(lost[0] == qcow2::Loss{GuestOffset(4 * kMiB), 4 * kMiB, qcow2::LossReason::kTable});
  } else {
    CHECK(lost[0] == qcow2::Loss{GuestOffset(kMiB + 8192), 4096, qcow2::LossReason::kUnreadable});
  }
  std::copy_n(good.begin() + static_cast<ptrdiff_t>(lost[0].at.value()), lost[0].length,
              bytes.begin() + static_cast<ptrdiff_t>(lost[0].at.value()));
  CHECK((bytes == good));
  CHECK(storage->failed < 100);
}

TEST_CASE("a list of losses is short and complete", "[salvage]") {
  qcow2::Losses losses;
  constexpr uint64_t kCount = 3 * qcow2::Losses::kMost;
  for (uint64_t i = 0; i < kCount; ++i)
    losses.add(GuestOffset(i * 8192), 512, qcow2::LossReason::kUnreadable);
  const auto list = losses.list(kCount * 8192);
  CHECK(list.size() <= qcow2::Losses::kMost);
  size_t at = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    while (at < list.size() && list[at].end().value() <= i * 8192) ++at;
    REQUIRE(at < list.size());
    REQUIRE(list[at].at.value() <= i * 8192);
    REQUIRE(list[at].end().value() >= i * 8192 + 512);
  }
  // Each byte counts once, with its first reason.
  qcow2::Losses two;
  two.add(GuestOffset(100), 100, qcow2::LossReason::kEntry);
  two.add(GuestOffset(50), 300, qcow2::LossReason::kStream);
  const auto three = two.list(300);
  REQUIRE(three.size() == 3);
  CHECK(three[1] == qcow2::Loss{GuestOffset(100), 100, qcow2::LossReason::kEntry});
  CHECK(three[2] == qcow2::Loss{GuestOffset(200), 100, qcow2::LossReason::kStream});
}

}  // namespace vc::checks
