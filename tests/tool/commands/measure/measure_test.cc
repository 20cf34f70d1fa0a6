// Compares virt-compact measure with real copies, and each key with qemu-img.

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/catch_text.h"
#include "tests/interop/image_editor.h"
#include "tests/interop/image_maker.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

using nlohmann::json;
using support::Outcome;
using support::Random;
using support::TempDirectory;
using tool_test::run_tool;
using Words = std::vector<std::string>;

Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

json measure(const Words& words) {
  const Outcome outcome = run_tool(Words{"measure", "--output=json"} + words);
  INFO(support::shell_line(words));
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  return json::parse(outcome.out);
}

json qemu_measure(const Words& words) {
  return json::parse(support::run_ok(Words{"qemu-img", "measure", "--output=json"} + words).out);
}

// Returns the length of the file that a copy with these options makes.
uint64_t copied(const Words& words, const std::string& source) {
  const TempDirectory folder;
  support::run_ok(Words{tool_test::virt_compact(), "copy", "-q"} + words +
                  Words{source, folder / "copy"});
  return std::filesystem::file_size(folder / "copy");
}

void check_exact(const Words& words, const std::string& source) {
  INFO(support::shell_line(words));
  const json measured = measure(words + Words{source});
  CHECK(measured["exact"] == true);
  CHECK(measured["file-size"] == copied(words, source));
}

// Makes a disk of `mib` MiB. `make(bytes, number)` fills each piece of 64 KiB.
template <typename Make>
void write_disk(const std::string& path, uint64_t mib, Make make) {
  std::vector<std::byte> bytes(mib << 20);
  for (uint64_t i = 0; i < mib * 16; ++i) make(std::span(bytes).subspan(i << 16, 1 << 16), i);
  support::write_file(path, bytes);
}

// Fills with bytes of few values, which compress to `bits` of 8.
void fill_with_text(Random& random, std::span<std::byte> bytes, unsigned bits) {
  random.fill(bytes);
  for (std::byte& it : bytes) it &= std::byte((1u << bits) - 1);
}

}  // namespace

TEST_CASE("measure computes the exact size of an uncompressed copy", "[measure]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(6); ++i) {
    INFO("VIRT_COMPACT_SEED=" << seed + i);
    Random random(seed + i);
    const TempDirectory folder;
    const auto image = interop::make_image(random, folder.path());
    INFO(image.recipe);
    check_exact({}, image.path);
    if (image.huge) continue;
    const Words extended = {"-o", "extended_l2=on,cluster_size=32k"};
    const std::vector<Words> all = {
        {"-o", "cluster_size=4k,refcount_bits=1"},
        {"--cluster-size=2M", "-o", "refcount_bits=64"},
        {"-o", "compat=0.10,extended_l2=off,lazy_refcounts=off,refcount_bits=16"},
        {"-o", "preallocation=metadata,cluster_size=64k"},
        {"-o", "preallocation=falloc,cluster_size=64k"},
        extended,
        {"-O", "raw"},
        {"--compression=zstd", "--cluster-size=16k"},
        {"--compression=zlib:1"}};
    check_exact(random.pick(all), image.path);
    check_exact(random.pick(all), image.path);
    for (const auto& disk : image.disks)
      if (!disk.snapshot.empty()) {
        const json measured = measure({"--snapshot", disk.snapshot, image.path});
        CHECK(measured["file-size"] == copied({"--snapshot", disk.snapshot}, image.path));
      }
  }
}

TEST_CASE("qemu-img's keys have qemu-img's values", "[measure]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(8); ++i) {
    INFO("VIRT_COMPACT_SEED=" << seed + i);
    Random random(seed + i);
    const TempDirectory folder;
    const auto image = interop::make_image(random, folder.path());
    INFO(image.recipe);
    unsigned least = 12;
    while ((image.size >> (2 * least - 3)) > 4096) ++least;
    const uint64_t cluster_size = uint64_t{1} << random.between(std::min(least, 20u), 21);
    const bool old = random.chance(30);
    const std::string options = fmt::format(
        "cluster_size={},refcount_bits={},extended_l2={},compat={},preallocation={}", cluster_size,
        old ? 16 : 1 << random.between(0, 6),
        !old && cluster_size >= 16384 && random.chance(50) ? "on" : "off", old ? "0.10" : "1.1",
        random.pick(std::vector<std::string>{"off", "metadata", "falloc", "full"}));
    INFO(options);
    json mine = measure({"-O", "qcow2", "-o", options, image.path});
    json judge = qemu_measure({"-O", "qcow2", "-o", options, image.path});
    // Allocated blocks that were never written are holes for ext4, until a read puts them into the
    // page cache: then they are data. Our first run has read all of them.
    for (int again = 0; again < 2 && mine["required"] != judge["required"]; ++again) {
      mine = measure({"-O", "qcow2", "-o", options, image.path});
      judge = qemu_measure({"-O", "qcow2", "-o", options, image.path});
    }
    CHECK(mine["fully-allocated"] == judge["fully-allocated"]);
    CHECK(mine.contains("bitmaps") == judge.contains("bitmaps"));
    if (judge.contains("bitmaps")) CHECK(mine["bitmaps"] == judge["bitmaps"]);
    CHECK(mine["required"] == judge["required"]);
    // QEMU does not count clusters with preallocated metadata only, since they are holes.
    const bool sparse = options.find("=metadata") != std::string::npos;
    CHECK(mine["file-size"] <= mine[sparse ? "fully-allocated" : "required"]);
    const json raw = measure({"-O", "raw", image.path});
    const json raw_judge = qemu_measure({"-O", "raw", image.path});
    CHECK(raw["required"] == raw_judge["required"]);
    CHECK(raw["fully-allocated"] == raw_judge["fully-allocated"]);
  }
  for (const std::string size : {"0", "512", "1G", "3T", "5368709120"})
    for (const std::string options : {"cluster_size=64k", "cluster_size=2M,extended_l2=on",
                                      "preallocation=full,cluster_size=64k"}) {
      INFO(size << " " << options);
      const json mine = measure({"-O", "qcow2", "-o", options, "--size", size});
      const json judge = qemu_measure({"-O", "qcow2", "-o", options, "--size", size});
      CHECK(mine["required"] == judge["required"]);
      CHECK(mine["fully-allocated"] == judge["fully-allocated"]);
      // Our empty disk has an L1 table, which QEMU does not count.
      if (size != "0") CHECK(mine["file-size"] <= mine["required"]);
    }
}

TEST_CASE("preallocated disks of any size are computed", "[measure]") {
  const auto check = [](const std::string& size, const std::string& options) {
    INFO(size << " " << options);
    const json mine = measure({"-O", "qcow2", "-o", options, "--size", size});
    const json judge = qemu_measure({"-O", "qcow2", "-o", options, "--size", size});
    CHECK(mine["required"] == judge["required"]);
    CHECK(mine["fully-allocated"] == judge["fully-allocated"]);
    // Both have a place for each cluster. The rest may differ by rounding.
    const double ours = mine["file-size"];
    const double theirs = judge["fully-allocated"];
    CHECK(ours > theirs * 0.999 - 1e6);
    CHECK(ours < theirs * 1.001 + 1e6);
  };
  for (const std::string preallocation : {"metadata", "falloc", "full"})
    for (const std::string size : {"1", "1M", "512M", "536936448", "1T", "63T"})
      check(size, "cluster_size=64k,preallocation=" + preallocation);
  check("64G", "cluster_size=512,preallocation=metadata");
  check("63T", "cluster_size=2M,extended_l2=on,preallocation=metadata");
  check("63T", "cluster_size=64k,refcount_bits=64,preallocation=metadata");

  // A file without data needs no work.
  const TempDirectory folder;
  const std::string raw = folder / "empty.raw";
  std::ofstream(raw).close();
  std::filesystem::resize_file(raw, uint64_t{4} << 40);
  const Words words{"-O", "qcow2", "-o", "cluster_size=64k,preallocation=metadata"};
  CHECK(measure(words + Words{"-f", "raw", raw})["file-size"] ==
        measure(words + Words{"--size", "4T"})["file-size"]);
}

TEST_CASE("the text describes the image, and the JSON agrees with qemu-img", "[measure]") {
  const TempDirectory folder;
  const std::string image = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, "3G"});
  CHECK_THAT(run_tool({"measure", image}).out,
             Catch::StartsWith(run_tool({"measure", "-O", "qcow2", image}).out.substr(0, 40)));
  CHECK(measure({image})["required"] == qemu_measure({image})["required"]);
  CHECK(measure({image})["required"] != measure({"-O", "qcow2", image})["required"]);
}

TEST_CASE("bitmaps are measured as QEMU does", "[measure]") {
  const TempDirectory folder;
  const std::string image = folder / "bitmaps.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, "3G"});
  CHECK(measure({"-O", "qcow2", image})["bitmaps"] == 0);
  CHECK(!measure({image}).contains("bitmaps"));
  support::run_ok({"qemu-img", "bitmap", "--add", image, "first"});
  support::run_ok({"qemu-img", "bitmap", "--add", "-g", "4k", image, "a-longer-name"});
  for (const std::string size : {"4k", "64k", "2M"})
    CHECK(measure({"-o", "cluster_size=" + size, image})["bitmaps"] ==
          qemu_measure({"-O", "qcow2", "-o", "cluster_size=" + size, image})["bitmaps"]);

  const json old = qemu_measure({"-O", "qcow2", "-o", "compat=0.10", image});
  CHECK(measure({"-O", "qcow2", "-o", "compat=0.10", image}).contains("bitmaps") ==
        old.contains("bitmaps"));
  CHECK(!old.contains("bitmaps"));

  // A directory with a wrong length is an error, and takes no memory.
  interop::ImageEditor editor(image);
  auto extensions = editor.extensions();
  for (auto& it : extensions)
    if (it.type == 0x23852875) it.data[0] = it.data[8] = std::byte{0x7f};
  editor.put_extensions(editor.get32(interop::ImageEditor::kHeaderLength), extensions);
  editor.save();
  const Outcome outcome = run_tool({"measure", "-O", "qcow2", image});
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.peak_memory < 200 << 20);
}

TEST_CASE("a copy with bitmaps is measured exactly, and its bounds count them", "[measure]") {
  const TempDirectory folder;
  const std::string image = folder / "image.qcow2";
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, "1G"});
  for (const std::string name : {"first", "second"})
    support::run_ok({"qemu-img", "bitmap", "--add", "-g", "4k", image, name});
  std::vector<std::string> write{"qemu-io"};
  for (unsigned i = 0; i < 60; ++i)
    write.insert(write.end(), {"-c", "write -q -P 7 " + std::to_string(i * 17) + "M 64k"});
  support::run_ok(write + Words{image});
  for (const Words& words : {Words{}, Words{"-c"}, Words{"--skip-free"}}) {
    CAPTURE(words);
    const Words with = words + Words{"--bitmaps"};
    const json all = measure(with + Words{"-O", "qcow2", image});
    CHECK(all["file-size"] == copied(with, image));
    CHECK(all["file-size"] > copied(words, image));
  }
  const json part = measure({"-c", "--bitmaps", "--sample-size=64k", image});
  const auto length = copied({"-c", "--bitmaps"}, image);
  CHECK(part["exact"] == false);
  CHECK(part["file-size-low"] <= length);
  CHECK(part["file-size-high"] >= length);
  const json less = measure({"-c", "--sample-size=64k", image});
  CHECK(part["file-size"].get<uint64_t>() - less["file-size"].get<uint64_t>() ==
        length - copied({"-c"}, image));
  CHECK(run_tool({"measure", "--bitmaps", "--size=1G"}).exit_code != 0);
}

TEST_CASE("the bounds of an estimate hold for data of many kinds", "[measure]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk.raw";
  const auto check = [&](const char* kind) {
    for (const Words& words : {Words{"--compression=zstd:1", "--cluster-size=4k"},
                               Words{"--compression=zlib:1", "--cluster-size=8k"}}) {
      if (words[1] == "--cluster-size=8k" && kind != std::string("all mixed")) continue;
      INFO(kind << " " << support::shell_line(words));
      const json all = measure(words + Words{"--exact", disk});
      const json part = measure(words + Words{"--sample-size=8M", disk});
      CHECK(all["file-size"] == copied(words, disk));
      CHECK(part["exact"] == false);
      CHECK(part["file-size-low"] <= all["file-size"]);
      CHECK(part["file-size-high"] >= all["file-size"]);
      CHECK(part["file-size-low"] <= part["file-size"]);
      // 256 units of small clusters are enough for an estimate.
      if (words[1] == "--cluster-size=4k")
        CHECK(part["file-size-high"].get<uint64_t>() - part["file-size-low"].get<uint64_t>() <
              16 << 20);
      CHECK(part["file-size"] <= part["file-size-high"]);
      CHECK(part["sampled-bytes"] <= 9 << 20);
      // The result is the same each time.
      CHECK(measure(words + Words{"--sample-size=8M", disk}) == part);
    }
  };
  Random random(5);
  write_disk(disk, 32, [&](auto bytes, uint64_t) { fill_with_text(random, bytes, 3); });
  check("one kind of text");
  write_disk(disk, 32,
             [&](auto bytes, uint64_t i) { fill_with_text(random, bytes, i % 2 == 0 ? 8 : 5); });
  check("noise and text in turn");
  write_disk(disk, 32, [&](auto bytes, uint64_t i) {
    if (i > 440)
      fill_with_text(random, bytes, 8);
    else if (i % 3 != 0)
      fill_with_text(random, bytes, 2);
  });
  check("text and zeros, and noise at the end");
  write_disk(disk, 32, [&](auto bytes, uint64_t) {
    fill_with_text(random, bytes, static_cast<unsigned>(random.between(0, 8)));
  });
  check("all mixed");
}

TEST_CASE("measure of a server, a pipe and a large empty disk", "[measure]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk.raw";
  Random random(6);
  write_disk(disk, 3, [&](auto bytes, uint64_t i) {
    if (i % 2 == 0) random.fill(bytes);
  });
  const uint64_t size = copied({"-o", "cluster_size=64k"}, disk);
  CHECK(measure({"-o", "cluster_size=64k", "[", "nbdkit", "file", disk, "]"})["file-size"] == size);
  const Outcome piped = tool_test::run_script(
      "\"$VIRT_COMPACT\" measure -f raw --json -o cluster_size=64k - < \"$1\"", {disk});
  INFO(piped.describe());
  CHECK(json::parse(piped.out)["file-size"] == size);

  const std::string huge = folder / "huge.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", huge, "16T"});
  support::run_ok({"qemu-io", "-c", "write -P 1 1M 8M", "-c", "write -P 2 15T 1M", huge});
  const Outcome outcome = run_tool({"measure", huge});
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK(outcome.peak_memory < 300 << 20);
  check_exact({}, huge);
}

TEST_CASE("a table marks the smallest result, and recommends a choice", "[measure]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk.raw";
  Random random(7);
  write_disk(disk, 2, [&](auto bytes, uint64_t) { fill_with_text(random, bytes, 4); });
  const Outcome text = run_tool({"measure", "--table", disk});
  INFO(text.describe());
  CHECK(text.ok());
  CHECK_THAT(text.out, Catch::Contains("*") && Catch::Contains("Recommended: --compression="));
  const json table = measure({"--table", disk});
  CHECK(table["table"].size() == 18);
  for (const json& it : table["table"]) {
    CHECK(it["file-size"] >= table["smallest"]["file-size"]);
    const Words words = {"--compression=" + it["compression"].get<std::string>(),
                         fmt::format("--cluster-size={}", it["cluster-size"].get<uint64_t>())};
    if (it["cluster-size"] == 65536) CHECK(it["file-size"] == copied(words, disk));
  }
}

TEST_CASE("measure --in-place predicts what compact makes of the file", "[measure]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  Random random(seed);
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  write_disk(folder / "raw", 12, [&](std::span<std::byte> bytes, uint64_t i) {
    fill_with_text(random, bytes, i % 3 == 0 ? 8 : 2);
  });
  support::run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "raw", disk});
  support::run_ok({"qemu-io", "-f", "qcow2", "-d", "unmap", "-c", "discard -q 1M 2M", "-c",
                   "discard -q 7M 1M", "-c", "write -q -P 0 8M 512k", "-c", "discard -q 10M 64k",
                   "-c", "write -q 10M 64k", disk});
  const auto before = support::read_file(disk);
  const auto same = [](json a, json b) {
    a.erase("seconds");
    b.erase("seconds");
    return a == b;
  };
  const Words in_place{"--in-place"};
  for (const Words& levels :
       {Words{}, Words{"--shrink"}, Words{"--zeros"}, Words{"--defragment"}, Words{"-c"},
        Words{"--compress"}, Words{"--compression=zlib:9"}, Words{"--defragment", "-c"}}) {
    INFO(support::shell_line(levels));
    const json measured = measure(in_place + levels + Words{disk});
    CHECK((support::read_file(disk) == before));
    const Outcome dry = run_tool(Words{"compact", "--dry-run", "--json"} + levels + Words{disk});
    REQUIRE(dry.ok());
    CHECK(same(measured, json::parse(dry.out)));
    support::write_file(folder / "twin", before);
    const Outcome done = run_tool(Words{"compact", "--json"} + levels + Words{folder / "twin"});
    INFO(done.describe());
    REQUIRE(done.ok());
    const auto predicted = measured["after"]["length"].get<double>();
    const auto length = static_cast<double>(std::filesystem::file_size(folder / "twin"));
    CHECK(predicted < 0.8 * static_cast<double>(before.size()));
    if (measured["compressed"] == 0) {
      CHECK(predicted == length);
    } else {
      CHECK(predicted <= 1.02 * length);
      CHECK(length <= 1.02 * predicted);
    }
  }
  CHECK(measure({"--in-place", disk})["zeros"] == 0);
  CHECK(measure({"--in-place", "--zeros", disk})["zeros"] == 512 << 10);
  CHECK(measure({"--in-place", "--defragment", disk})["misplaced"].get<uint64_t>() > 0);
  const Outcome text = run_tool({"measure", "--in-place", "--untrusted", disk});
  INFO(text.describe());
  CHECK(text.ok());
  CHECK_THAT(text.out, Catch::Contains("would be") && Catch::Contains("Nothing was written"));
}

TEST_CASE("measure --in-place refuses the options of copies", "[measure]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"});
  const auto refuses = [](const Words& words, const std::string& why) {
    const Outcome outcome = run_tool(Words{"measure"} + words);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains(why));
  };
  for (const char* const option :
       {"--cluster-size=1M", "--options=compat=1.1", "--profile=archive", "--size=1M", "--exact",
        "--table", "--skip-free", "--with-snapshots", "--bitmaps", "--snapshot=1", "--decrypt",
        "--output-format=raw", "--format=qcow2", "--force-share", "--sample-size=1M"})
    refuses({"--in-place", option, disk},
            std::string(option).substr(0, std::string(option).find('=')) +
                " and --in-place: no copy is measured");
  refuses({"--shrink", disk}, "--shrink needs --in-place");
  refuses({"--zeros", disk}, "--zeros needs --in-place");
  refuses({"--defragment", disk}, "--defragment needs --in-place");
  refuses({"--in-place", "--compression=none", disk}, "nothing is decompressed");
  refuses({"--in-place", "--compression=zstd", disk}, "its header says zlib");
  refuses({"--in-place"}, "SRC is missing");
  refuses({"--in-place", "nbd://localhost"}, "only files and block devices");
  support::write_file(folder / "raw", std::vector<std::byte>(4096));
  refuses({"--in-place", folder / "raw"}, "is a raw file");
}
