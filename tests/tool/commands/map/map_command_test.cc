#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/catch_text.h"
#include "tests/interop/image_editor.h"
#include "tests/interop/image_maker.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using tool_test::run_tool;

namespace {

std::vector<std::string> words(std::vector<std::string> first,
                               const std::vector<std::string>& rest) {
  first.insert(first.end(), rest.begin(), rest.end());
  return first;
}

json qemu_map(const std::vector<std::string>& rest) {
  return json::parse(support::run_ok(words({"qemu-img", "map", "--output=json"}, rest)).out);
}

json our_map(const std::vector<std::string>& rest) {
  const auto outcome = run_tool(words({"map", "--output=json"}, rest));
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  CHECK(outcome.err.empty());
  return json::parse(outcome.out);
}

// Compares each entry with QEMU's, key by key. "compressed" is in QEMU's since 8.2, and always in
// ours.
void check_same_map(const json& expected, const json& got) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, expected[i].dump(), got[i].dump());
    json rest = got[i];
    const bool compressed = rest["compressed"];
    for (const auto& [key, value] : expected[i].items()) {
      REQUIRE(rest.contains(key));
      CHECK(rest[key] == value);
      rest.erase(key);
    }
    rest.erase("compressed");
    // QEMU omits the offset of a compressed cluster.
    CHECK(compressed == (expected[i]["data"] == true && !expected[i].contains("offset")));
    CHECK(rest.contains("compressed-bytes") == compressed);
    rest.erase("compressed-bytes");
    CHECK(rest.empty());
  }
}

}  // namespace

TEST_CASE("map agrees with qemu-img on images of every kind", "[map]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(25); ++i) {
    CAPTURE(seed + i);
    support::Random random(seed + i);
    const support::TempDirectory folder;
    const auto image = interop::make_image(random, folder.path());
    CAPTURE(image.recipe);
    check_same_map(qemu_map({image.path}), our_map({image.path}));
    const std::string start = std::to_string(random.below(image.size));
    const std::string length = std::to_string(random.between(1, image.size));
    CAPTURE(start, length);
    check_same_map(qemu_map({"-s", start, "-l", length, image.path}),
                   our_map({"-s", start, "-l", length, image.path}));

    // Compares the text table line by line, where QEMU has one.
    const auto table = support::run({"qemu-img", "map", image.path});
    if (table.ok()) CHECK(run_tool({"map", image.path}).out == table.out);
  }
}

TEST_CASE("map shows the offset of unallocated subclusters", "[map]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(6); ++i) {
    CAPTURE(seed + i);
    support::Random random(seed + i);
    const support::TempDirectory folder;
    const std::string base = folder / "base.qcow2";
    const std::string top = folder / "top.qcow2";
    // The base may be shorter. Then the top determines the rest.
    support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", base,
                     std::to_string(random.between(1, 4) << 20)});
    support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", base,
                     "-F", "qcow2", top, "3M"});
    bool some = false;
    for (const std::string& path : {base, top})
      for (unsigned n = 0; n < 12; ++n)
        support::run({"qemu-io", "-c",
                      fmt::format("{} {} 2k", random.chance(75) ? "write" : "write -z",
                                  random.below(512) * 2048),
                      path});
    for (const std::string& path : {base, top}) {
      const json expected = qemu_map({path});
      for (const json& it : expected)
        some = some || (it["present"] == false && it.contains("offset"));
      check_same_map(expected, our_map({path}));
    }
    CHECK(some);
  }
}

TEST_CASE("map of a raw file agrees with qemu-img", "[map]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk.raw";
  support::run_ok({"qemu-img", "create", "-q", "-f", "raw", path, "10M"});
  support::run_ok({"qemu-io", "-f", "raw", "-c", "write 1M 1M", "-c", "write 5M 4k", path});
  check_same_map(qemu_map({path}), our_map({path}));
  check_same_map(qemu_map({"-f", "raw", path}), our_map({"-f", "raw", path}));
  CHECK(run_tool({"map", path}).out == support::run_ok({"qemu-img", "map", path}).out);
  const json behind = our_map({"-s", "11M", path});
  REQUIRE(behind.size() == 1);
  CHECK(behind[0]["start"] == 11 << 20);
  CHECK(behind[0]["length"] == 0);
  CHECK(run_tool({"map", "-s", "11M", path}).out ==
        support::run_ok({"qemu-img", "map", "-s", "11M", path}).out);
}

TEST_CASE("map finds holes with preallocated metadata as QEMU does", "[map]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, "100M"});
  support::run_ok({"qemu-io", "-c", "write 10M 1M", "-c", "write -z 30M 1M", path});
  const json got = our_map({path});
  check_same_map(qemu_map({path}), got);
  CHECK(got[0]["zero"] == true);
  CHECK(got[0]["data"] == true);
}

TEST_CASE("map shows compressed clusters in the text table, too", "[map]") {
  const support::TempDirectory folder;
  support::write_file(folder / "disk.raw", std::string(1 << 20, 'x'));
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "convert", "-c", "-O", "qcow2", folder / "disk.raw", path});
  CHECK(run_tool({"map", path}).out ==
        "Offset          Length          Mapped to       File\n"
        "0               0x100000        compressed      " +
            path + "\n");
  const json got = our_map({path});
  REQUIRE(got.size() == 1);
  CHECK(got[0]["compressed-bytes"] >= 16 * 50);
  CHECK(got[0]["compressed-bytes"] <= 16 * 1024);
}

TEST_CASE("map works with NBD servers", "[map]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk.raw";
  support::run_ok({"qemu-img", "create", "-q", "-f", "raw", path, "10M"});
  support::run_ok({"qemu-io", "-f", "raw", "-c", "write 1M 1M", path});
  const auto server = support::NbdServer::qemu_nbd({"-f", "raw", path});
  const std::string uri = "nbd+unix:///?socket=" + server.socket();
  check_same_map(qemu_map({uri}), our_map({uri}));
  CHECK_THAT(run_tool({"map", uri}).out,
             Catch::Contains("\n0x100000        0x100000        0x100000"));
  const auto command = run_tool({"map", "--output=json", "[", "nbdkit", "memory", "1M", "]"});
  CHECK(json::parse(command.out)[0]["zero"] == true);
}

TEST_CASE("map fails as qemu-img does, and names the place", "[map]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  CHECK(run_tool({"map", path}).exit_code == 1);
  CHECK(run_tool({"map"}).exit_code == 1);
  CHECK(run_tool({"map", "-"}).exit_code == 1);
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1G"});
  support::run_ok({"qemu-io", "-c", "write 600M 64k", path});
  interop::ImageEditor editor(path);
  editor.put64(editor.l2_entry_at(600 << 20), 0x8000000000050200);
  editor.save();
  const auto outcome = run_tool({"map", "--output=json", path});
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Catch::StartsWith("virt-compact: error: " + path +
                                            ": guest offset 0x25800000 maps to 0x50200"));
  CHECK(support::run({"qemu-img", "map", "--output=json", path}).exit_code == 1);
}

TEST_CASE("a picture replaces no file without --force", "[map]") {
  const support::TempDirectory folder;
  const std::string image = folder / "image.qcow2";
  const std::string victim = folder / "victim";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, "1M"});
  support::write_file(victim, std::string("precious"));
  std::filesystem::create_symlink("victim", folder / "link");
  for (const std::string& name : {victim, folder / "link"}) {
    const auto outcome = run_tool({"map", "--svg", name, image});
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains("exists already: use --force"));
    CHECK(support::read_file(victim).size() == 8);
  }
  CHECK(run_tool({"map", "--force", image}).exit_code == 1);
  CHECK(run_tool({"map", "--force", "--svg", victim, image}).ok());
  CHECK(support::read_file(victim).size() > 100);
}

TEST_CASE("map of a sparse disk of 16 TiB reads little", "[map]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "16T"});
  support::run_ok({"qemu-io", "-c", "write 0 64k", "-c", "write 15T 64k", path});
  check_same_map(qemu_map({path}), our_map({path}));
  // 500 MB of address space are enough for the picture and the survey.
  const auto outcome = tool_test::run_script(
      "ulimit -v 500000; \"$VIRT_COMPACT\" map --svg \"$2\" \"$1\" && \"$VIRT_COMPACT\" info "
      "\"$1\"",
      {path, folder / "picture.svg"});
  INFO(outcome.describe());
#if !defined(__SANITIZE_ADDRESS__)
  CHECK(outcome.ok());
#endif
}
