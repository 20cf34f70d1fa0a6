// Writes to encrypted images: the plugin, trim, flatten, updates.
#include <fmt/format.h>

#include <array>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/encryption/luks_disk.h"

using namespace vc;
using namespace vc::tool_test;

using Catch::Contains;
using support::NbdServer;
using support::run_ok;
using support::TempDirectory;

namespace {

constexpr uint64_t kSize = 3 << 20;
// Options of qemu-img create.
constexpr std::array kKinds{"", ",extended_l2=on", ",cluster_size=4k,lazy_refcounts=on",
                            ",cluster_size=512,compat=0.10"};

// `name`: a raw disk, or the URI of a server.
void write_to(const std::string& name, const std::vector<std::string>& commands) {
  std::vector<std::string> words{"qemu-io", "-f", "raw", "-d", "unmap"};
  for (const std::string& it : commands) words.insert(words.end(), {"-c", it});
  words.push_back(name);
  run_ok(words);
}

// Random writes of any length and offset, and discards, after which the content is unknown.
std::vector<std::string> random_requests(uint64_t seed, unsigned count, bool discards) {
  support::Random random(seed);
  std::vector<std::string> commands;
  for (unsigned i = 0; i < count; ++i) {
    const uint64_t at = random.below(kSize - 1);
    const uint64_t length = std::min<uint64_t>(1 + random.below(150000), kSize - at);
    switch (random.below(5)) {
      case 0:
        commands.push_back(fmt::format("write -q -z {} {}", at, length));
        break;
      case 1:
        if (discards) commands.push_back(fmt::format("discard -q {} {}", at / 4096 * 4096, length));
        break;
      default:
        commands.push_back(fmt::format("write -q -P {} {} {}", 1 + random.below(255), at, length));
    }
  }
  return commands;
}

void check_clean(const std::string& path) {
  const auto outcome = qemu_check(path);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
}

}  // namespace

TEST_CASE("a write to an encrypted image changes nothing beside it", "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  for (size_t i = 0; i < kKinds.size(); ++i) {
    CAPTURE(kKinds[i]);
    const TempDirectory folder;
    const std::string disk = folder / "disk", model = folder / "model";
    create_luks(disk, std::to_string(kSize), kKinds[i]);
    qemu_io(disk, random_writes(seed + i, kSize, 5));
    support::write_file(model, qemu_reads(disk));
    support::write_file(folder / "key", std::string("geheim\n"));
    const auto requests = random_requests(seed + i, 25, false);
    {
      const NbdServer server =
          NbdServer::nbdkit({plugin(), "file=" + disk, "passphrase=+" + (folder / "key")});
      write_to(server.uri(), requests);
    }
    write_to(model, requests);
    check_clean(disk);
    CHECK((qemu_reads(disk) == support::read_file(model)));
  }
}

TEST_CASE("what the plugin writes to an encrypted image, QEMU reads", "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  for (size_t i = 0; i < kKinds.size(); ++i) {
    CAPTURE(kKinds[i]);
    const TempDirectory folder;
    const std::string disk = folder / "disk", raw = folder / "raw";
    create_luks(disk, std::to_string(kSize), kKinds[i]);
    qemu_io(disk, random_writes(seed + i, kSize, 10));
    support::write_file(folder / "key", std::string("geheim\n"));
    {
      const NbdServer server =
          NbdServer::nbdkit({plugin(), "file=" + disk, "passphrase=+" + (folder / "key")});
      write_to(server.uri(), random_requests(seed + i, 40, true));
      run_ok({"qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri(), raw});
      // The last: the image shrinks, and its clusters move.
      write_to(server.uri(), {"discard -q 0 1M", "flush"});
      run_ok({"qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri(), raw});
    }
    check_clean(disk);
    CHECK((qemu_reads(disk) == support::read_file(raw)));
    const auto ours = run_tool({"check", "-q", disk});
    INFO(ours.describe());
    CHECK(ours.ok());
  }
}

TEST_CASE("the plugin needs the passphrase of an encrypted image", "[encryption]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  create_luks(disk, "1M");
  const auto start = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = support::nbdkit_command();
    words.insert(words.end(), {"-U", "-", plugin(), "file=" + disk});
    words.insert(words.end(), more.begin(), more.end());
    words.insert(words.end(), {"--run", "true"});
    return support::run(words);
  };
  CHECK(start({"passphrase=geheim"}).ok());
  CHECK(start({"passphrase=wrong", "passphrase=geheim"}).ok());
  const auto none = start({});
  CHECK_FALSE(none.ok());
  CHECK_THAT(none.err, Contains("passphrase=+FILE"));
  const auto wrong = start({"passphrase=falsch"});
  CHECK_FALSE(wrong.ok());
  CHECK_THAT(wrong.err, Contains("it is wrong") && !Contains("falsch"));
  CHECK_FALSE(start({"untrusted=true", "passphrase=geheim"}).ok());
}

TEST_CASE("an encrypted overlay is flattened, and stays encrypted", "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  const TempDirectory folder;
  const std::string base = folder / "base", top = folder / "top";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, std::to_string(kSize)});
  std::vector<std::string> words{"qemu-io", "-f", "qcow2"};
  for (std::string& it : random_writes(seed, kSize, 20)) words.insert(words.end(), {"-c", it});
  words.push_back(base);
  run_ok(words);
  create_luks(top, std::to_string(kSize));
  run_ok({"qemu-img", "rebase", "-u", "-F", "qcow2", "-b", base, "--object",
          "secret,id=s,data=geheim", "--image-opts",
          "driver=qcow2,encrypt.key-secret=s,file.filename=" + top});
  qemu_io(top, random_writes(seed + 1, kSize, 10));
  const auto expected = qemu_reads(top);
  const std::string key = key_in_file(folder / "key");
  const auto locked = run_tool({"flatten", "-q", "--in-place", top});
  CHECK(locked.exit_code == 1);
  CHECK_THAT(locked.err, Contains("--key"));
  const auto done = run_tool({"flatten", "-q", "--in-place", key, top});
  INFO(done.describe());
  REQUIRE(done.ok());
  run_ok({"rm", base});
  CHECK((qemu_reads(top) == expected));
  check_clean(top);
}

TEST_CASE("optimize makes an encrypted disk small, and keeps its encryption", "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  create_luks(disk, std::to_string(kSize));
  qemu_io(disk, random_writes(seed, kSize, 30));
  const auto expected = qemu_reads(disk);
  const auto header = luks_header(disk);
  const std::string key = key_in_file(folder / "key");
  const auto done = run_tool({"optimize", "-q", key, "--trim=none", "--force", disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK((qemu_reads(disk) == expected));
  CHECK((luks_header(disk) == header));
  check_clean(disk);
  run_ok({"rm", disk + ".bak"});
  // A new passphrase and master key; then none.
  const auto renewed =
      run_tool({"optimize", "-q", key, "--trim=none", "--object", "secret,id=n,data=new",
                "--options", "encrypt.format=luks,encrypt.key-secret=n,encrypt.iter-time=10",
                "--output", folder / "renewed", disk});
  INFO(renewed.describe());
  REQUIRE(renewed.ok());
  CHECK((qemu_reads(folder / "renewed", "new") == expected));
  CHECK((luks_header(folder / "renewed") != header));
  const auto open = run_tool(
      {"optimize", "-q", key, "--trim=none", "--decrypt", "--output", folder / "open", disk});
  INFO(open.describe());
  REQUIRE(open.ok());
  run_ok({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", folder / "open", folder / "raw"});
  CHECK((support::read_file(folder / "raw") == expected));
  const auto packed = run_tool({"optimize", "-q", key, "--trim=none", "--force", "-c", disk});
  CHECK(packed.exit_code == 1);
  CHECK_THAT(packed.err, Contains("cannot be compressed"));
}

TEST_CASE("a metadata trim of an encrypted image frees space", "[encryption]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk", raw = folder / "raw", open = folder / "open";
  support::write_file(raw, std::string());
  support::resize_file(raw, 64 << 20);
  run_ok({"mkfs.ext4", "-q", "-F", raw});
  // Data in free space.
  run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 5 40M 8M", raw});
  const auto made =
      run_tool({"copy", "-q", "-f", "raw", "--object", "secret,id=s,data=geheim", "-o",
                "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", raw, disk});
  INFO(made.describe());
  REQUIRE(made.ok());
  const auto before = support::RawFile(disk).size();
  const std::string key = key_in_file(folder / "key");
  const auto done = run_tool({"trim", "-q", "--metadata", key, disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK(support::RawFile(disk).size() + (4 << 20) < before);
  check_clean(disk);
  support::write_file(open, qemu_reads(disk));
  run_ok({"e2fsck", "-fn", open});
}
