// Copies that share blocks with their source, on filesystems of the kernel.
#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/interop/image_maker.h"
#include "tests/interop/qemu.h"
#include "tests/reflink/mounted_filesystem.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"

using namespace vc;

using nlohmann::json;
using reflink_test::MountedFilesystem;
using tool_test::run_tool;

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMiB = 1 << 20;

// A filesystem with room for some copies. The test is skipped without it.
struct Place {
  explicit Place(const std::string& type, uint64_t size = 1024 * kMiB) : filesystem(type, size) {
    if (!filesystem.missing().empty()) WARN("skipped: " + type + ": " + filesystem.missing());
  }
  bool is_missing() const { return !filesystem.missing().empty(); }
  std::string operator/(const std::string& name) const { return filesystem / name; }

  MountedFilesystem filesystem;
};

// Writes random bytes to a new file.
void make_noise(const std::string& path, uint64_t length) {
  support::Random random(length);
  std::vector<std::byte> bytes(length);
  random.fill(bytes);
  support::write_file(path, bytes);
}

// Makes a disk with scattered data, and zeros that are stored.
void make_image(const std::string& path, const std::string& options = "cluster_size=64k") {
  const std::string noise = path + ".noise";
  make_noise(noise, 24 * kMiB);
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "256M"});
  support::run_ok({"qemu-io", "-c", "write -q -s " + noise + " 100M 24M", "-c",
                   "write -q -s " + noise + " 1M 5M", "-c", "write -q -P 0 40M 8M", "-c",
                   "write -q -P 7 200M 4k", "-c", "write -q -P 8 50340k 4k", "-c",
                   "write -q -P 9 262136k 8k", path});
  fs::remove(noise);
  support::run_ok({"sync", "-f", path});
}

support::RunOptions with_clones(const std::string& how) {
  const char* const library = std::getenv("VIRT_COMPACT_CLONE_FAULTS");
  support::RunOptions options;
  options.environment = {std::string("LD_PRELOAD=") + (library ? library : ""),
                         "VIRT_COMPACT_CLONES=" + how, "ASAN_OPTIONS=verify_asan_link_order=0"};
  return options;
}

json copy(std::vector<std::string> arguments, const support::RunOptions& options = {}) {
  arguments.insert(arguments.begin(), {"copy", "--json", "-q"});
  const auto outcome = run_tool(arguments, options);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  return json::parse(outcome.out);
}

void require_same_file(const std::string& a, const std::string& b) {
  const auto difference = support::first_difference(a, b);
  INFO(a << " and " << b << " differ at " << difference.value_or(0));
  REQUIRE(!difference);
}

void require_same_disk(const std::string& a, const std::string& b) {
  const auto outcome = support::run({"qemu-img", "compare", a, b});
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
}

}  // namespace

TEST_CASE("a clone has the bytes of a copy, and takes no space", "[reflink]") {
  using Case = std::pair<std::string, std::string>;
  const auto [type, options] =
      GENERATE(values({Case("xfs", "cluster_size=64k"), Case("xfs", "cluster_size=4k"),
                       Case("xfs", "cluster_size=2M"), Case("xfs", "extended_l2=on"),
                       Case("btrfs", "cluster_size=64k"), Case("btrfs", "cluster_size=2M")}));
  CAPTURE(type, options);
  const Place place(type);
  if (place.is_missing()) return;
  const std::string source = place / "source";
  make_image(source, options);
  const json copied = copy({"--reflink=never", source, place / "copied"});
  CHECK(copied["cloned"] == 0);
  const uint64_t before = place.filesystem.used();
  const json cloned = copy({"--reflink=always", "--verify", source, place / "cloned"});
  // All data except the last part of the disk with clusters that end after it.
  CHECK(cloned["cloned"] >= 29 * kMiB);
  CHECK(cloned["clusters"] == copied["clusters"]);
  CHECK(cloned["verified"]["shared"] >= 29 * kMiB);
  CHECK(cloned["verified"]["read"] <= 5 * kMiB);
  // The tables, and what the filesystem needs for its own.
  const uint64_t tables = 6 * cloned["cluster-size"].get<uint64_t>();
  CHECK(place.filesystem.used() - before < 2 * kMiB + tables);
  require_same_file(place / "copied", place / "cloned");
  CHECK(interop::check_complaint(place / "cloned").empty());
  // What shares blocks does not share its fate.
  support::run_ok({"qemu-io", "-c", "write -q -P 1 100M 24M", source});
  require_same_file(place / "copied", place / "cloned");
  fs::remove(source);
  require_same_disk(place / "copied", place / "cloned");
}

TEST_CASE("raw disks are cloned, with their holes", "[reflink]") {
  const std::string type = GENERATE(as<std::string>(), "xfs", "btrfs");
  CAPTURE(type);
  const Place place(type);
  if (place.is_missing()) return;
  const std::string image = place / "image";
  const std::string raw = place / "raw";
  make_image(image);
  support::run_ok({"qemu-img", "convert", "-O", "raw", image, raw});
  // A disk of an odd size, with zeros that are stored.
  support::run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 0 64M 1M", raw});
  // Space that was never written.
  support::run_ok({"fallocate", "-o", "60M", "-l", "1M", raw});
  support::resize_file(raw, 256 * kMiB - 512);
  support::run_ok({"sync", "-f", raw});
  for (const char* const sparse : {"", "-S64k", "-S4k", "-S1M"}) {
    CAPTURE(sparse);
    std::vector<std::string> arguments{"--force", "--verify", "--reflink=always", "-fraw",
                                       "-Oraw",   raw,        place / "to-raw"};
    if (*sparse) arguments.insert(arguments.begin(), sparse);
    CHECK(copy(arguments)["cloned"] >= 28 * kMiB);
    require_same_file(raw, place / "to-raw");
  }
  CHECK(fs::file_size(place / "to-raw") == 256 * kMiB - 512);
  const auto blocks = [](const std::string& path) {
    const auto outcome = support::run_ok({"stat", "-c", "%b", path});
    return std::stoull(outcome.out) * 512;
  };
  CHECK(blocks(place / "to-raw") < 34 * kMiB);
  CHECK(copy({"--verify", "-fraw", raw, place / "to-image"})["cloned"] >= 28 * kMiB);
  CHECK(interop::compare_complaint(place / "to-image", "qcow2", raw).empty());
  CHECK(copy({"--verify", "-Oraw", image, place / "from-image"})["cloned"] >= 28 * kMiB);
  CHECK(interop::compare_complaint(image, "qcow2", place / "from-image").empty());
}

TEST_CASE("cloned images of all kinds are what copies are", "[reflink]") {
  const std::string type = GENERATE(as<std::string>(), "xfs", "btrfs");
  const Place place(type);
  if (place.is_missing()) return;
  const uint64_t first_seed = support::base_seed();
  for (uint64_t seed = first_seed; seed < first_seed + support::iterations(2); ++seed) {
    support::Random random(seed);
    const std::string folder = place / fmt::format("{}", seed);
    fs::create_directory(folder);
    const interop::MadeImage made = interop::make_image(random, folder);
    if (made.huge || !made.sound) {
      fs::remove_all(folder);
      continue;
    }
    INFO(made.recipe);
    const std::string size = random.pick<std::string>({"4k", "16k", "64k", "256k", "2M"});
    CAPTURE(seed, size);
    for (const interop::MadeDisk& disk : made.disks) {
      std::vector<std::string> arguments{"--force", "--cluster-size=" + size, made.path};
      if (!disk.snapshot.empty())
        arguments.insert(arguments.begin(), "--snapshot=" + disk.snapshot);
      const auto copy_to = [&](const std::string& name, const std::string& how) {
        auto all = arguments;
        all.push_back(folder + "/" + name);
        all.insert(all.begin(), {"--reflink=" + how, "--verify"});
        return copy(all);
      };
      const json copied = copy_to("copied.out", "never");
      const json cloned = copy_to("cloned.out", "auto");
      CHECK(copied["clusters"] == cloned["clusters"]);
      require_same_file(folder + "/copied.out", folder + "/cloned.out");
      REQUIRE(interop::check_complaint(folder + "/cloned.out").empty());
      REQUIRE(interop::compare_complaint(folder + "/cloned.out", "qcow2", disk.raw).empty());
    }
    fs::remove_all(folder);
  }
}

TEST_CASE("all commands that copy clone", "[reflink]") {
  const Place place("xfs");
  if (place.is_missing()) return;
  const std::string base = place / "base";
  const std::string overlay = place / "overlay";
  make_image(base);
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay});
  support::run_ok({"qemu-io", "-c", "write -q -P 5 101M 3M", overlay});
  const auto cloned = [](const std::vector<std::string>& arguments) -> uint64_t {
    const auto outcome = run_tool(arguments);
    INFO(outcome.describe());
    REQUIRE(outcome.ok());
    return json::parse(outcome.out)["cloned"];
  };
  CHECK(cloned({"flatten", "--json", "--reflink=always", overlay, place / "flat"}) >= 29 * kMiB);
  CHECK(cloned({"flatten", "--json", "--reflink=never", overlay, place / "copied"}) == 0);
  require_same_file(place / "flat", place / "copied");
  require_same_disk(overlay, place / "flat");

  support::run_ok({"qemu-img", "snapshot", "-c", "one", base});
  CHECK(cloned({"snapshot", "--json", "--reflink=always", "--export=one", base, place / "one"}) >=
        29 * kMiB);
  require_same_disk(base, place / "one");

  const std::string disk = place / "flat";
  const uint64_t before = place.filesystem.used();
  const auto optimized =
      run_tool({"optimize", "--trim=none", "--force", "--reflink=always", "--backup=.old", disk});
  INFO(optimized.describe());
  REQUIRE(optimized.ok());
  CHECK(place.filesystem.used() - before < 4 * kMiB);
  require_same_disk(disk, disk + ".old");
}

TEST_CASE("internal snapshots are cloned, too", "[reflink]") {
  const std::string type = GENERATE(as<std::string>(), "xfs", "btrfs");
  CAPTURE(type);
  const Place place(type);
  if (place.is_missing()) return;
  const std::string source = place / "source";
  make_image(source);
  support::run_ok({"qemu-img", "snapshot", "-c", "one", source});
  support::run_ok({"qemu-io", "-c", "write -q -P 5 100M 12M", source});
  support::run_ok({"sync", "-f", source});
  const json copied = copy({"--with-snapshots", "--reflink=never", source, place / "copied"});
  const uint64_t before = place.filesystem.used();
  const json cloned =
      copy({"--with-snapshots", "--reflink=always", "--verify", source, place / "cloned"});
  CHECK(cloned["snapshots"] == copied["snapshots"]);
  CHECK(cloned["cloned"] >= 41 * kMiB);
  CHECK(cloned["verified"]["shared"] >= 41 * kMiB);
  CHECK(place.filesystem.used() - before < 4 * kMiB);
  require_same_file(place / "copied", place / "cloned");
  CHECK(interop::check_complaint(place / "cloned").empty());
  support::run_ok({"qemu-img", "snapshot", "-a", "one", source});
  support::run_ok({"qemu-img", "snapshot", "-a", "one", place / "cloned"});
  require_same_disk(source, place / "cloned");
}

TEST_CASE("the check of free space knows that clones take none", "[reflink]") {
  const Place place("xfs", 320 * kMiB);
  if (place.is_missing()) return;
  const std::string source = place / "source";
  const std::string noise = place / "noise";
  make_noise(noise, 32 * kMiB);
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", source, "1G"});
  for (int i = 0; i < 5; ++i)
    support::run_ok(
        {"qemu-io", "-c", fmt::format("write -q -s {} {}M 32M", noise, 100 * i), source});
  support::run_ok({"sync", "-f", source});
  const auto copied = run_tool({"copy", "--reflink=never", source, place / "copied"});
  CHECK(copied.exit_code == 1);
  CHECK_THAT(copied.err, Catch::Contains("the copy needs about"));
  CHECK(copy({"--verify", source, place / "cloned"})["cloned"] == 160 * kMiB);
  require_same_disk(source, place / "cloned");
  // With another method, the space is checked before the guest is inspected, too.
  for (const char* const trimming : {"--trim=none", "--trim=metadata"}) {
    const auto optimized =
        run_tool({"optimize", trimming, "--keep-going", "--no-backup", "--force", source});
    INFO(optimized.describe());
    CHECK(optimized.ok());
    CHECK(!Catch::Contains("fits only if").match(optimized.err));
  }
  const auto refused =
      run_tool({"optimize", "--trim=metadata", "--keep-going", "--reflink=never", source});
  INFO(refused.describe());
  CHECK(refused.exit_code == 1);
}

TEST_CASE("what cannot be cloned is an error if clones are demanded", "[reflink]") {
  const support::TempDirectory folder;
  const std::string source = folder / "source";
  const std::string to = folder / "to";
  make_image(source);
  const auto fails = [&](std::vector<std::string> arguments, const std::string& message) {
    arguments.insert(arguments.begin(), {"copy", "--reflink=always"});
    // Pretends that the filesystem can clone.
    const auto outcome = run_tool(arguments, with_clones("copy"));
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains("failed to clone") && Catch::Contains(message));
    CHECK(!fs::exists(to));
  };
  fails({"-c", source, to}, "all data is compressed");
  fails({"--salvage", source, to}, "--salvage must read all data");
  fails({"-opreallocation=full", source, to}, "reserves space");
  fails({"--cluster-size=512", source, to}, "clusters of 512 bytes are smaller than the blocks");
  fails({source, "null:"}, "is not a file");
  const support::Outcome piped = tool_test::run_script(
      "\"$VIRT_COMPACT\" copy --reflink=always -f raw -  \"$1\" < \"$2\"", {to, source});
  CHECK_THAT(piped.err, Catch::Contains("failed to clone") && Catch::Contains("not an image file"));
  const auto word = run_tool({"copy", "--reflink=sometimes", source, to});
  CHECK(word.exit_code == 1);
  CHECK_THAT(word.err, Catch::Contains("'sometimes' is not one of: auto, always, never"));
  // Plain data that is not at multiples of blocks.
  const std::string small = folder / "small";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-ocluster_size=512", small, "1M"});
  support::run_ok(
      {"qemu-io", "-c", "write -q -P 3 8k 1k", "-c", "write -q -P 4 102912 64k", small});
  fails({"--cluster-size=64k", small, to}, "is not in whole blocks of 4096 bytes");
  CHECK(copy({"--verify", "--cluster-size=64k", small, to}, with_clones("copy"))["cloned"] == 0);
  require_same_disk(small, to);
  // Compressed data is no plain data.
  const std::string packed = folder / "packed";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", packed, "8M"});
  support::run_ok({"qemu-io", "-c", "write -q -c -P 3 0 64k", packed});
  CHECK(copy({"--force", "--reflink=always", packed, to}, with_clones("copy"))["cloned"] == 0);
}

TEST_CASE("an encrypted disk is not cloned", "[reflink]") {
  const support::TempDirectory folder;
  const std::string plain = folder / "plain";
  const std::string source = folder / "source";
  support::write_file(folder / "key", std::string("secret"));
  const std::string secret = "secret,id=k,file=" + (folder / "key");
  make_image(plain);
  const auto encrypted =
      run_tool({"copy", "--object", secret, "-o",
                "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10", plain, source},
               with_clones("copy"));
  INFO(encrypted.describe());
  REQUIRE(encrypted.ok());
  const std::string source_options = "driver=qcow2,encrypt.key-secret=k,file.filename=" + source;
  const auto copy_disk = [&](const std::vector<std::string>& how) {
    std::vector<std::string> arguments{"copy", "--json",       "-q",           "--object",
                                       secret, "--image-opts", source_options, folder / "to"};
    arguments.insert(arguments.begin() + 1, how.begin(), how.end());
    return run_tool(arguments, with_clones("copy"));
  };
  for (const std::vector<std::string>& how :
       {std::vector<std::string>{"--reflink=always"}, {"--reflink=always", "--decrypt"}}) {
    const auto refused = copy_disk(how);
    INFO(refused.describe());
    CHECK(refused.exit_code == 1);
    CHECK_THAT(refused.err, Catch::Contains("failed to clone") && Catch::Contains("encrypted"));
  }
  const auto copied = copy_disk({"--decrypt"});
  INFO(copied.describe());
  REQUIRE(copied.ok());
  CHECK(json::parse(copied.out)["cloned"] == 0);
}

TEST_CASE("a filesystem that does not share blocks gets a copy", "[reflink]") {
  const Place place("xfs");
  if (place.is_missing()) return;
  const support::TempDirectory folder;
  const std::string source = folder / "source";
  make_image(source);
  const auto refused = run_tool({"copy", "--reflink=always", source, place / "to"});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Catch::Contains("failed to clone " + source) &&
                              Catch::Contains("Invalid cross-device link"));
  CHECK(!fs::exists(place / "to"));
  CHECK(copy({"--verify", source, place / "to"})["cloned"] == 0);
  copy({"--reflink=never", source, folder / "copied"});
  require_same_file(place / "to", folder / "copied");
}

TEST_CASE("clones that fail are copied, or are errors", "[reflink]") {
  const Place place("xfs");
  if (place.is_missing()) return;
  const std::string source = place / "source";
  const std::string to = place / "to";
  make_image(source, "cluster_size=4k");
  copy({"--reflink=never", source, place / "copied"});
  // The first call finds out whether the filesystem can.
  struct Fault {
    const char* kind;
    unsigned number;
    int errnum;
  };
  for (const auto& [kind, number, errnum] :
       {Fault{"fail", 1, EOPNOTSUPP}, Fault{"fail", 2, EXDEV}, Fault{"once", 7, EINVAL},
        Fault{"fail", 7, ENOSPC}, Fault{"once", 20, EPERM}, Fault{"fail", 20, EDQUOT}}) {
    const std::string fault = fmt::format("{}:{}:{}", kind, number, errnum);
    CAPTURE(fault);
    const json copied = copy({"--force", "--verify", source, to}, with_clones(fault));
    require_same_file(to, place / "copied");
    if (number > 2) CHECK(copied["cloned"] > 0);
    fs::remove(to);
    const auto demanded = run_tool({"copy", "--reflink=always", source, to}, with_clones(fault));
    INFO(demanded.describe());
    CHECK(demanded.exit_code == 1);
    CHECK_THAT(demanded.err, Catch::Contains("failed to clone " + source) &&
                                 Catch::Contains(std::strerror(errnum)));
    CHECK(!fs::exists(to));
  }
  // The same error would meet a copy.
  const auto broken = run_tool({"copy", source, to}, with_clones("once:7:5"));
  INFO(broken.describe());
  CHECK(broken.exit_code == 1);
  CHECK_THAT(broken.err, Catch::Contains("Input/output error"));
  CHECK(!fs::exists(to));
}

TEST_CASE("many short ranges are cloned", "[reflink]") {
  const std::string type = GENERATE(as<std::string>(), "xfs", "btrfs");
  const Place place(type);
  if (place.is_missing()) return;
  const std::string source = place / "source";
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", source, "32M"});
  // In descending order, so that no two clusters are one range. More of them than wait for a clone.
  std::vector<std::string> command{"qemu-io", "-f", "qcow2"};
  constexpr int kClusters = 6000;
  for (int i = kClusters; i-- > 0;)
    command.insert(command.end(), {"-c", fmt::format("write -q -P {} {}k 4k", i % 255 + 1, 4 * i)});
  command.push_back(source);
  support::run_ok(command);
  for (const std::string threads : {"1", "4"}) {
    CAPTURE(type, threads);
    const std::string to = place / ("to" + threads);
    const json copied = copy({"--reflink=always", "--verify", "--threads=" + threads, source, to});
    CHECK(copied["cloned"] == kClusters * 4096);
    support::run_ok({"qemu-img", "compare", "-q", source, to});
    support::run_ok({"qemu-img", "check", "-q", to});
  }
}

TEST_CASE("verification finds a clone of wrong blocks", "[reflink]") {
  const std::string type = GENERATE(as<std::string>(), "xfs", "btrfs");
  const Place place(type);
  if (place.is_missing()) return;
  const std::string source = place / "source";
  make_image(source);
  const std::string raw = place / "raw";
  support::run_ok({"qemu-img", "convert", "-O", "raw", source, raw});
  for (const std::string format : {"qcow2", "raw"}) {
    CAPTURE(type, format);
    const auto outcome = run_tool({"copy", "--verify", "-f", format, "-O", format,
                                   format == "raw" ? raw : source, place / "to"},
                                  with_clones("wrong:2"));
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains("differs from its source"));
    CHECK(!fs::exists(place / "to"));
  }
}

TEST_CASE("clones whose blocks are not known to be shared are read", "[reflink]") {
  const support::TempDirectory folder;
  const std::string source = folder / "source";
  make_image(source);
  const json copied =
      copy({"--reflink=always", "--verify", source, folder / "to"}, with_clones("copy"));
  CHECK(copied["cloned"] >= 29 * kMiB);
  CHECK(copied["verified"]["read"] >= 29 * kMiB);
  require_same_disk(source, folder / "to");
}
