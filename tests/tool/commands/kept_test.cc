// What a copy, and an optimized disk, have of their source: the tables in the pages.
#include <fmt/format.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using nlohmann::json;
using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;

namespace {

// Makes a disk of 4 MiB with these options of qemu-img create.
void make_disk(const std::string& path, const std::string& options) {
  std::vector<std::string> words{"qemu-img", "create", "-q", "-f", "qcow2"};
  if (!options.empty()) words.insert(words.end(), {"-o", options});
  words.insert(words.end(), {path, "4M"});
  run_ok(words);
  run_ok(
      {"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 1M 1M", "-c", "write -q -P 6 3M 5k", path});
}

// The layout, in qemu-img's words.
json layout(const std::string& path) {
  const json info = json::parse(run_ok({"qemu-img", "info", "--output=json", path}).out);
  json data = info.at("format-specific").at("data");
  data["cluster-size"] = info.at("cluster-size");
  data.erase("corrupt");
  return data;
}

support::Outcome make(const std::string& command, const std::string& options,
                      const std::string& disk, const std::string& result) {
  std::vector<std::string> words{command, "--force"};
  if (command == "optimize") words.insert(words.end(), {"--trim=none", "--output", result});
  if (!options.empty()) words.insert(words.end(), {"--options", options});
  words.push_back(disk);
  if (command == "copy") words.push_back(result);
  const auto done = run_tool(words);
  INFO(done.describe());
  REQUIRE(done.ok());
  run_ok({"qemu-img", "compare", "-q", disk, result});
  run_ok({"qemu-img", "check", "-q", result});
  return done;
}

}  // namespace

TEST_CASE("a copy and an optimized disk have the layout of their source", "[kept]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk", result = folder / "result";
  for (const std::string options :
       {"", "cluster_size=16k", "cluster_size=2M", "refcount_bits=1", "refcount_bits=64",
        "lazy_refcounts=on", "extended_l2=on", "extended_l2=on,cluster_size=32k,refcount_bits=32",
        "compat=0.10", "compat=0.10,cluster_size=4k"}) {
    CAPTURE(options);
    run_ok({"rm", "-f", disk});
    make_disk(disk, options);
    const json before = layout(disk);
    make("optimize", "", disk, result);
    CHECK(layout(result) == before);
    make("copy", "", disk, result);
    // As qemu-img convert, a copy has the current version.
    json wanted = before;
    if (before.at("compat") == "0.10") {
      run_ok({"qemu-img", "convert", "-O", "qcow2", "-o",
              fmt::format("cluster_size={}", before.at("cluster-size").get<unsigned>()), disk,
              folder / "theirs"});
      wanted = layout(folder / "theirs");
    }
    CHECK(layout(result) == wanted);
  }
}

TEST_CASE("the layout of a copy and of an optimized disk can be chosen", "[kept]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk", result = folder / "result";
  const std::string theirs = folder / "theirs";
  make_disk(disk, "extended_l2=on,cluster_size=32k,refcount_bits=32,lazy_refcounts=on");
  make_disk(folder / "old", "compat=0.10");
  for (const std::string options :
       {"extended_l2=off,lazy_refcounts=off,refcount_bits=16,cluster_size=64k",
        "extended_l2=on,lazy_refcounts=off,refcount_bits=8,cluster_size=128k",
        "compat=0.10,extended_l2=off,lazy_refcounts=off,refcount_bits=16,cluster_size=4k"}) {
    CAPTURE(options);
    run_ok({"qemu-img", "convert", "-O", "qcow2", "-o", options, disk, theirs});
    for (const char* const command : {"copy", "optimize"}) {
      CAPTURE(command);
      make(command, options, disk, result);
      CHECK(layout(result) == layout(theirs));
    }
  }
  // What version 2 does not have makes the result version 3.
  for (const std::string options : {"compat=1.1", "extended_l2=on", "lazy_refcounts=on",
                                    "refcount_bits=8", "compression_type=zstd"}) {
    CAPTURE(options);
    run_ok({"qemu-img", "convert", "-O", "qcow2", "-o", options, folder / "old", theirs});
    make("optimize", options, folder / "old", result);
    CHECK(layout(result) == layout(theirs));
  }
}

TEST_CASE("compressed data stays compressed in an optimized disk, and not in a copy", "[kept]") {
  const TempDirectory folder;
  const std::string plain = folder / "plain", disk = folder / "disk", result = folder / "result";
  make_disk(plain, "");
  const auto compressed = [&](const std::string& path) {
    return json::parse(run_ok({"qemu-img", "check", "--output=json", path}).out)
        .value("compressed-clusters", 0);
  };
  for (const std::string type : {"zlib", "zstd"}) {
    CAPTURE(type);
    run_ok({"qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=" + type, plain,
            disk});
    make("optimize", "", disk, result);
    CHECK(layout(result) == layout(disk));
    CHECK(compressed(result) == compressed(disk));
    make("copy", "", disk, result);
    CHECK(layout(result).at("compression-type") == "zlib");
    CHECK(compressed(result) == 0);
  }
}

TEST_CASE("an external data file becomes a part of the result, unless one is chosen", "[kept]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk", result = folder / "result";
  make_disk(disk, "data_file=" + (folder / "data") + ",data_file_raw=on");
  for (const char* const command : {"copy", "optimize"}) {
    CAPTURE(command);
    make(command, "", disk, result);
    CHECK_FALSE(layout(result).contains("data-file"));
    const std::string data = folder / std::string("data-of-") + command;
    make(command, fmt::format("data_file={},data_file_raw=on", data), disk, result);
    CHECK(layout(result).at("data-file") == data);
    CHECK((support::read_file(data) == support::read_file(folder / "data")));
    CHECK(layout(result).at("data-file-raw") == true);
    support::write_file(result, std::string());
  }
}

TEST_CASE("header extensions of an unknown type are not copied, and a warning names them",
          "[kept]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk", result = folder / "result";
  make_disk(disk, "");
  for (const char* const command : {"copy", "optimize"})
    CHECK(make(command, "", disk, result).err.find("unknown type") == std::string::npos);
  // The table of feature names becomes an extension of another program.
  constexpr std::array kNames{std::byte{0x68}, std::byte{0x03}, std::byte{0xf8}, std::byte{0x57}};
  constexpr std::array kOther{std::byte{0x12}, std::byte{0x34}, std::byte{0x56}, std::byte{0x78}};
  const auto bytes = support::read_file(disk);
  const auto at = std::search(bytes.begin(), bytes.end(), kNames.begin(), kNames.end());
  REQUIRE(at != bytes.end());
  support::patch_file(disk, static_cast<uint64_t>(at - bytes.begin()), kOther);
  for (const char* const command : {"copy", "optimize"}) {
    CAPTURE(command);
    CHECK_THAT(
        make(command, "", disk, result).err,
        Contains(disk + ": 1 header extension of an unknown type (0x12345678) is not copied"));
    const auto copied = support::read_file(result);
    CHECK(std::search(copied.begin(), copied.end(), kOther.begin(), kOther.end()) == copied.end());
  }
}

TEST_CASE("an optimized disk keeps extended attributes, and a copy has none", "[kept]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk", result = folder / "result";
  make_disk(disk, "");
  if (::setxattr(disk.c_str(), "user.note", "kept", 4, 0) != 0) return;  // no such file system
  const auto note = [](const std::string& path) {
    std::array<char, 8> value{};
    const ssize_t length = ::getxattr(path.c_str(), "user.note", value.data(), value.size());
    return length < 0 ? std::string() : std::string(value.data(), static_cast<size_t>(length));
  };
  make("copy", "", disk, result);
  CHECK(note(result).empty());
  // As the page says.
  run_ok({"cp", "--attributes-only", "--preserve=xattr", disk, result});
  CHECK(note(result) == "kept");
  run_ok({"qemu-img", "compare", "-q", disk, result});
  const auto done = run_tool({"optimize", "-q", "--trim=none", "--force", disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK(note(disk) == "kept");
}
