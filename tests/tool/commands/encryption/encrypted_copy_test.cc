// Copies of encrypted disks, compared with QEMU.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/encryption/luks_disk.h"

using namespace vc;
using namespace vc::tool_test;

using support::run_ok;
using support::TempDirectory;

namespace {

constexpr uint64_t kSize = 3 << 20;

// `virt-compact <words>`, which must succeed.
void tool(const std::vector<std::string>& words) {
  const auto done = run_tool(words);
  INFO(done.describe());
  REQUIRE(done.ok());
}

void check_clean(const std::string& path) {
  for (const auto& outcome : {qemu_check(path), run_tool({"check", "-q", path})}) {
    INFO(outcome.describe());
    REQUIRE(outcome.ok());
    REQUIRE(outcome.out.empty());
  }
}

}  // namespace

TEST_CASE("an encrypted disk is read as QEMU reads it, and its copy stays encrypted",
          "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  const std::vector<std::string> kinds{
      "",
      ",encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,"
      "cluster_size=4096",
      ",encrypt.cipher-alg=aes-128,encrypt.cipher-mode=ctr,cluster_size=2M",
      ",encrypt.cipher-alg=aes-128,encrypt.cipher-mode=ecb,encrypt.hash-alg=ripemd160,cluster_size="
      "512",
      ",encrypt.cipher-alg=serpent-256,extended_l2=on",
      ",encrypt.cipher-alg=aes-192,cluster_size=16k",
      ",encrypt.cipher-alg=twofish-256,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain,"
      "encrypt.hash-alg=sha384,compat=0.10",
      ",encrypt.cipher-alg=cast5-128,encrypt.cipher-mode=cbc,refcount_bits=64,cluster_size=1024",
  };
  for (size_t i = 0; i < kinds.size(); ++i) {
    CAPTURE(kinds[i]);
    const TempDirectory folder;
    const std::string disk = folder / "disk", copy = folder / "copy", raw = folder / "raw";
    const std::string key = key_in_file(folder / "key");
    create_luks(disk, std::to_string(kSize), kinds[i]);
    qemu_io(disk, random_writes(seed + i, kSize, 40));
    const auto expected = qemu_reads(disk);
    tool({"copy", "-q", key, "--decrypt", "-O", "raw", disk, raw});
    CHECK((support::read_file(raw) == expected));
    tool({"copy", "-q", key, "--verify", disk, copy});
    CHECK((qemu_reads(copy) == expected));
    CHECK((luks_header(copy) == luks_header(disk)));
    check_clean(copy);
    tool({"compare", "-q", key, disk, copy});
    tool({"copy", "-q", key, "--decrypt", "-c", disk, folder / "open"});
    run_ok({"qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", folder / "open", raw});
  }
}

TEST_CASE("the map of an encrypted disk is that of QEMU", "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  create_luks(disk, std::to_string(kSize), ",preallocation=metadata");
  qemu_io(disk, random_writes(seed, kSize, 20));
  const auto ours = run_tool({"map", "--output=json", disk});
  const auto theirs =
      run_ok({"qemu-img", "map", "--output=json", "--object", "secret,id=s,data=geheim",
              "--image-opts", "driver=qcow2,encrypt.key-secret=s,file.filename=" + disk});
  INFO(ours.describe());
  auto entries = nlohmann::json::parse(ours.out);
  const auto expected = nlohmann::json::parse(theirs.out);
  REQUIRE(!expected.empty());
  // In QEMU's since 8.2.
  if (!expected.front().contains("compressed"))
    for (auto& it : entries) it.erase("compressed");
  CHECK(entries == expected);
}

TEST_CASE("a plain disk becomes an encrypted image that QEMU reads and writes", "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  const TempDirectory folder;
  const std::string plain = folder / "plain", raw = folder / "raw";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", plain, std::to_string(kSize)});
  std::vector<std::string> words{"qemu-io", "-f", "qcow2"};
  for (std::string& it : random_writes(seed, kSize, 40)) words.insert(words.end(), {"-c", it});
  words.push_back(plain);
  run_ok(words);
  run_ok({"qemu-img", "convert", "-O", "raw", plain, raw});
  const auto expected = support::read_file(raw);
  const std::string key = key_in_file(folder / "key");
  for (const std::string options :
       {"", ",encrypt.cipher-alg=serpent-128,encrypt.hash-alg=sha512", ",preallocation=metadata",
        ",encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,cluster_size=512,refcount_bits=64",
        ",extended_l2=on,preallocation=metadata", ",compat=0.10,cluster_size=4k"}) {
    CAPTURE(options);
    const std::string copy = folder / "copy";
    const std::string list =
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10" + options;
    tool({"copy", "-q", "--force", "--verify", "--object",
          std::string("secret,id=s,format=base64,data=Z2VoZWlt"), "-o", list, plain, copy});
    CHECK((qemu_reads(copy) == expected));
    check_clean(copy);
    qemu_io(copy, random_writes(seed + 1, kSize, 10));
    tool({"copy", "-q", "--force", key, "--decrypt", "-O", "raw", copy, raw});
    CHECK((support::read_file(raw) == qemu_reads(copy)));
    // To a pipe, with a pass to learn the place of the header.
    const auto piped = run_script(
        "\"$VIRT_COMPACT\" copy -q --spool=none --object secret,id=s,data=geheim -o \"$1\" \"$2\" "
        "- "
        ">\"$3\"",
        {list, plain, folder / "piped"});
    INFO(piped.describe());
    if (options.find("preallocation") == std::string::npos) {
      REQUIRE(piped.ok());
      CHECK((qemu_reads(folder / "piped") == expected));
    }
  }
}

TEST_CASE("a backing chain with several secrets is read, and its copy is encrypted like the top",
          "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  const TempDirectory folder;
  const std::string base = folder / "base", top = folder / "top", copy = folder / "copy";
  create_luks(base, std::to_string(kSize), "", "another");
  qemu_io(base, random_writes(seed, kSize, 30), "another");
  create_luks(top, std::to_string(kSize), ",cluster_size=4096");
  run_ok({"qemu-img", "rebase", "-u", "-F", "qcow2", "-b", base, "--object",
          "secret,id=s,data=geheim", "--image-opts",
          "driver=qcow2,encrypt.key-secret=s,file.filename=" + top});
  qemu_io(top, random_writes(seed + 1, kSize, 10), kPassphrase, "another");
  const auto expected = qemu_reads(top, kPassphrase, "another");
  const std::string key = key_in_file(folder / "key");
  const std::string other = key_in_file(folder / "other", "another");
  tool({"copy", "-q", key, other, top, copy});
  CHECK((qemu_reads(copy) == expected));
  check_clean(copy);
  // In QEMU's words.
  tool({"copy", "-q", "--force", "--object", "secret,id=a,data=geheim", "--object",
        "secret,id=b,data=another", "--image-opts",
        "driver=qcow2,encrypt.format=luks,encrypt.key-secret=a,backing.encrypt.key-secret=b,"
        "file.filename=" +
            top,
        copy});
  CHECK((qemu_reads(copy) == expected));
  // The base is kept.
  tool({"copy", "-q", "--force", key, other, "-B", base, top, copy});
  CHECK((qemu_reads(copy, kPassphrase, "another") == expected));
  // It is kept, and the copy has another secret.
  tool({"copy", "-q", "--force", "--verify", key, other, "--object", "secret,id=n,data=new", "-o",
        "encrypt.format=luks,encrypt.key-secret=n,encrypt.iter-time=10", "-B", base, top, copy});
  CHECK((qemu_reads(copy, "new", "another") == expected));
  const auto one = run_tool({"copy", "-q", "--force", key, top, copy});
  INFO(one.describe());
  CHECK(one.exit_code == 1);
  CHECK_THAT(one.err, Catch::Contains(base) && Catch::Contains("passphrase"));

  // What is encrypted in a base does not become plain without a word.
  const std::string open = folder / "open-top";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", base, "-F", "qcow2", open,
          std::to_string(kSize)});
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"copy", "-q", "--force", other, open, copy},
        std::vector<std::string>{"flatten", "-q", "--in-place", other, open}}) {
    const auto refused = run_tool(words);
    INFO(refused.describe());
    CHECK(refused.exit_code == 1);
    CHECK_THAT(refused.err, Catch::Contains("--decrypt"));
  }
}

TEST_CASE("an internal snapshot of an encrypted disk is copied encrypted", "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  const TempDirectory folder;
  const std::string disk = folder / "disk", copy = folder / "copy";
  const std::string key = key_in_file(folder / "key");
  create_luks(disk, std::to_string(kSize));
  qemu_io(disk, random_writes(seed, kSize, 20));
  const auto before = qemu_reads(disk);
  // Changes only metadata: no passphrase is needed.
  tool({"snapshot", "-q", "-c", "first", disk});
  qemu_io(disk, random_writes(seed + 1, kSize, 20));
  check_clean(disk);
  tool({"copy", "-q", key, "--snapshot", "first", disk, copy});
  CHECK((qemu_reads(copy) == before));
  const auto now = qemu_reads(disk);
  tool({"snapshot", "-q", "-d", "first", disk});
  check_clean(disk);
  CHECK((qemu_reads(disk) == now));
}

TEST_CASE("raw LUKS disks and the old AES format are sources", "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  const TempDirectory folder;
  const std::string plain = folder / "plain", luks = folder / "luks", aes = folder / "aes";
  const std::string key = key_in_file(folder / "key");
  std::vector<std::byte> bytes(kSize);
  support::Random random(seed);
  for (uint64_t at = 0; at < kSize; at += 512)
    if (random.chance(40))
      std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(at), 512,
                  static_cast<std::byte>(random.below(256)));
  support::write_file(plain, bytes);
  for (unsigned attempt = 0;; ++attempt) {
    const auto made =
        support::run({"qemu-img", "convert", "-f", "raw", "-O", "luks", "--object",
                      "secret,id=s,data=geheim", "-o", "key-secret=s,iter-time=10", plain, luks});
    if (made.ok()) break;
    INFO(made.describe());
    REQUIRE(attempt < 200);
  }
  tool({"copy", "-q", key, luks, folder / "of-luks"});
  CHECK((qemu_reads(folder / "of-luks") == bytes));
  check_clean(folder / "of-luks");
  tool({"copy", "-q", key, "-f", "luks", "--decrypt", luks, folder / "open"});
  run_ok({"qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", folder / "open", plain});

  // A part of a sector cannot be decrypted.
  const auto length = support::read_file(luks).size();
  for (const uint64_t more : {100u, 511u}) {
    run_ok({"truncate", "-s", std::to_string(length + more), luks});
    const auto cut = run_tool({"copy", key, luks, folder / "cut"});
    CHECK(cut.exit_code == 1);
    CHECK_THAT(cut.err, Catch::Contains(fmt::format("ends at {:#x}, within an encrypted sector",
                                                    length + more)) &&
                            Catch::Contains(fmt::format("truncate -s {}", length)));
  }
  run_ok({"truncate", "-s", std::to_string(length), luks});

  // The map needs no passphrase.
  const auto map = run_tool({"map", luks});
  INFO(map.describe());
  CHECK_THAT(map.out,
             Catch::Contains(fmt::format("{:#x}", support::read_file(luks).size() - kSize)));

  // As a backing file that is kept.
  const std::string top = folder / "top", thin = folder / "thin";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", luks, "-F", "luks", top,
          std::to_string(kSize)});
  tool({"copy", "-q", key, "-B", luks, top, thin});
  const auto named = run_tool({"info", thin});
  CHECK_THAT(named.out, Catch::Contains("backing file format: luks"));
  tool({"compare", "-q", key, thin, luks});

  run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "--object", "secret,id=s,data=geheim",
          "-o", "encrypt.format=aes,encrypt.key-secret=s", plain, aes});
  const auto opened = run_tool({"copy", key, "--decrypt", "-O", "raw", aes, folder / "raw"});
  INFO(opened.describe());
  REQUIRE(opened.ok());
  CHECK_THAT(opened.err, Catch::Contains("warning") && Catch::Contains("insecure"));
  CHECK((support::read_file(folder / "raw") == bytes));
  const auto two = run_tool(
      {"copy", "-q", key, key_in_file(folder / "key2", "other"), "--decrypt", aes, folder / "two"});
  CHECK(two.exit_code == 1);
  CHECK_THAT(two.err, Catch::Contains("give only one"));
  const auto kept = run_tool({"copy", "-q", key, aes, folder / "kept"});
  CHECK(kept.exit_code == 1);
  CHECK_THAT(kept.err, Catch::Contains("old AES method"));
}

TEST_CASE("a copy with snapshots encrypts all of them", "[encryption]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  const TempDirectory folder;
  const std::string disk = folder / "disk", copy = folder / "copy";
  const std::string key = key_in_file(folder / "key");
  create_luks(disk, std::to_string(kSize));
  qemu_io(disk, random_writes(seed, kSize, 20));
  const auto first = qemu_reads(disk);
  tool({"snapshot", "-q", "-c", "first", disk});
  qemu_io(disk, random_writes(seed + 1, kSize, 20));
  const auto now = qemu_reads(disk);
  for (const char* const clusters : {"cluster_size=64k", "cluster_size=4k"}) {
    CAPTURE(clusters);
    tool(
        {"copy", "-q", "--force", key, "--with-snapshots", "--verify", "-o", clusters, disk, copy});
    check_clean(copy);
    CHECK(qemu_reads(copy) == now);
    tool({"snapshot", "-q", "-a", "first", copy});
    CHECK(qemu_reads(copy) == first);
  }
  tool({"copy", "-q", "--force", key, "--with-snapshots", "--decrypt", "-c", disk, copy});
  run_ok({"qemu-img", "check", "-q", copy});
  run_ok({"qemu-img", "snapshot", "-a", "first", copy});
  run_ok({"qemu-img", "convert", "-O", "raw", copy, folder / "raw"});
  CHECK(support::read_file(folder / "raw") == first);
}
