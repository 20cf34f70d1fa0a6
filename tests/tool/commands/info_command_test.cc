#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using tool_test::run_tool;

namespace {

// Makes one image of each kind in a folder, which is removed with the object.
class Images {
 public:
  Images() {
    create("v3.qcow2", {"1M"});
    create("v2.qcow2", {"-o", "compat=0.10", "1M"});
    create(
        "options.qcow2",
        {"-o", "cluster_size=2M,lazy_refcounts=on,refcount_bits=1,preallocation=metadata", "20G"});
    create("zstd.qcow2", {"-o", "compression_type=zstd", "3T"});
    create("extended.qcow2", {"-o", "extended_l2=on,cluster_size=128k", "1000M"});
    create("data-file.qcow2", {"-o", "data_file=" + folder_ / "data" + ",data_file_raw=on", "1M"});
    create("relative.qcow2", {"-b", "v3.qcow2", "-F", "qcow2"});
    create("absolute.qcow2", {"-b", folder_ / "v2.qcow2", "-F", "qcow2"});
    create("no-format.qcow2", {"-u", "-b", "v3.qcow2", "-F", "raw", "1M"});
    // Changes its first extension, the backing format, to an unknown type.
    support::patch_file(folder_ / "no-format.qcow2", 112,
                        std::vector<std::byte>(4, std::byte{0x11}));
    create("missing.qcow2", {"-u", "-b", "../elsewhere/base.raw", "-F", "raw", "1M"});
    create("nbd.qcow2", {"-u", "-b", "nbd://localhost/export", "-F", "raw", "1M"});
    create("file.qcow2", {"-u", "-b", "file:base.raw", "-F", "raw", "1M"});
    create("snapshots.qcow2", {"1M"});
    snapshot("snapshots.qcow2", "first");
    support::run_ok({"qemu-img", "resize", "-q", folder_ / "snapshots.qcow2", "5M"});
    snapshot("snapshots.qcow2", "second \t one");
    create("bitmaps.qcow2", {"1M"});
    for (const char* const kind : {"--enable", "--disable"})
      support::run_ok({"qemu-img", "bitmap", "--add", kind, "-g", "4096", folder_ / "bitmaps.qcow2",
                       std::string("bitmap") + kind});
    create("dirty.qcow2", {"-o", "lazy_refcounts=on", "1M"});
    set_incompatible("dirty.qcow2", 1);
    create("corrupt.qcow2", {"1M"});
    set_incompatible("corrupt.qcow2", 2);
    support::run_ok({"qemu-img", "create", "-q", "-f", "raw", folder_ / "disk.raw", "1000000"});
    names_.push_back("disk.raw");
  }

  const std::vector<std::string>& names() const { return names_; }
  std::string path(const std::string& name) const { return folder_ / name; }
  const std::string& folder() const { return folder_.path(); }

 private:
  void create(const std::string& name, std::vector<std::string> rest) {
    const std::string size = rest.back();
    std::vector<std::string> command = {"qemu-img", "create", "-q", "-f", "qcow2"};
    const bool sized = size.find_first_not_of("0123456789MGT") == std::string::npos;
    command.insert(command.end(), rest.begin(), sized ? rest.end() - 1 : rest.end());
    command.push_back(folder_ / name);
    if (sized) command.push_back(size);
    support::run_ok(command);
    names_.push_back(name);
  }
  void snapshot(const std::string& image, const std::string& name) {
    support::run_ok({"qemu-img", "snapshot", "-c", name, folder_ / image});
  }
  void set_incompatible(const std::string& name, uint8_t bits) {
    support::patch_file(folder_ / name, 79, std::vector<std::byte>{std::byte{bits}});
  }

  support::TempDirectory folder_;
  std::vector<std::string> names_;
};

// -U, so that corrupt and dirty images are only read, not repaired.
json qemu_info(const std::string& path, const std::string& more = "--output=json") {
  return json::parse(support::run_ok({"qemu-img", "info", "-U", "--output=json", more, path}).out);
}

json our_info(const std::string& path, const std::string& more = "--output=json") {
  const auto outcome = run_tool({"info", "--output=json", more, path});
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  CHECK(outcome.err.empty());
  return json::parse(outcome.out);
}

// Checks that `got` contains everything in `expected`. It may have more keys.
void check_superset(const json& expected, const json& got, const std::string& where) {
  CAPTURE(where);
  if (expected.is_object()) {
    for (const auto& [key, value] : expected.items()) {
      const std::string at = where + "/" + key;
      CAPTURE(at);
      REQUIRE(got.contains(key));
      check_superset(value, got[key], at);
    }
  } else if (expected.is_array()) {
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < expected.size(); ++i)
      check_superset(expected[i], got[i], where + "/" + std::to_string(i));
  } else {
    CHECK(got == expected);
  }
}

std::set<std::string> keys(const json& object) {
  std::set<std::string> all;
  for (const auto& item : object.items()) all.insert(item.key());
  return all;
}

}  // namespace

TEST_CASE("the JSON of info has the values of qemu-img", "[info]") {
  const Images images;
  for (const std::string& name : images.names()) {
    CAPTURE(name);
    json expected = qemu_info(images.path(name));
    const json got = our_info(images.path(name));
    // Only in QEMU 8.0 and later. Files that an image refers to are not opened here.
    if (expected.contains("children") && expected["children"].size() != 1)
      expected.erase("children");
    check_superset(expected, got, "");
    // Few keys are not in qemu-img's output.
    auto more = keys(got);
    for (const auto& key : keys(expected)) more.erase(key);
    more.erase("children");
    const std::set<std::string> ours = {"features", "file-length", "fragmentation", "space"};
    CHECK(more == (expected["format"] == "raw" ? std::set<std::string>{"file-length"} : ours));
    if (got.contains("format-specific"))
      CHECK(keys(got["format-specific"]["data"]) == keys(expected["format-specific"]["data"]));
  }
  const json snapshots = our_info(images.path("snapshots.qcow2"))["snapshots"];
  CHECK(snapshots[0]["disk-size"] == 1 << 20);
  CHECK(snapshots[1]["disk-size"] == 5 << 20);
}

TEST_CASE("the text of info has the values of qemu-img", "[info]") {
  const Images images;
  for (const std::string& name : images.names()) {
    CAPTURE(name);
    const auto outcome = run_tool({"info", images.path(name)});
    REQUIRE(outcome.ok());
    std::istringstream expected(tool_test::in_our_words(
        support::run_ok({"qemu-img", "info", "-U", images.path(name)}).out));
    bool in_snapshots = false;  // formatted in our own way
    for (std::string line; std::getline(expected, line);) {
      if (in_snapshots) in_snapshots = line != "Format specific information:";
      if (!in_snapshots) CHECK_THAT("\n" + outcome.out, Catch::Contains("\n" + line + "\n"));
      if (line == "Snapshot list:") in_snapshots = true;
    }
  }
}

TEST_CASE("info describes the file below the image, as QEMU 8 does", "[info]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk.raw";
  support::write_file(path, std::string(1000, 'x'));
  const json info = json::parse(run_tool({"info", "--output=json", path}).out);
  // The form of QEMU 8.0, shown in github.com/vagrant-libvirt/vagrant-libvirt/issues/1746.
  const json expected = {{"children", json::array()},
                         {"virtual-size", 1024},
                         {"filename", path},
                         {"format", "file"},
                         {"actual-size", info["actual-size"]},
                         {"format-specific", {{"type", "file"}, {"data", json::object()}}},
                         {"dirty-flag", false}};
  REQUIRE(info["children"].size() == 1);
  CHECK(info["children"][0] == json({{"name", "file"}, {"info", expected}}));
  const json server =
      json::parse(run_tool({"info", "--output=json", "[", "nbdkit", "null", "1M", "]"}).out);
  CHECK(!server.contains("children"));
}

TEST_CASE("info lists snapshots in columns", "[info]") {
  const Images images;
  const auto outcome = run_tool({"info", images.path("snapshots.qcow2")});
  CHECK_THAT(outcome.out,
             Catch::Contains("Snapshot list:\n"
                             "ID        TAG               VM SIZE                DATE") &&
                 Catch::Contains("\n1         first                 0 B 20") &&
                 Catch::Contains("\n2         second \\x09 one       0 B 20"));
}

TEST_CASE("info does not need the files below an image", "[info]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
                   "data_file=" + folder / "data" + ",data_file_raw=on", path, "1M"});
  support::run_ok({"rm", folder / "data"});
  const json info = our_info(path);
  CHECK(info["format-specific"]["data"]["data-file"] == folder / "data");
  CHECK(info["format-specific"]["data"]["data-file-raw"] == true);
}

TEST_CASE("info resolves a backing file relative to the folder of the image", "[info]") {
  const Images images;
  support::RunOptions in_root;
  in_root.directory = "/";
  const auto outcome = run_tool({"info", images.path("relative.qcow2")}, in_root);
  CHECK_THAT(
      outcome.out,
      Catch::Contains("\nbacking file: v3.qcow2 (actual path: " + images.path("v3.qcow2") + ")\n"));
}

TEST_CASE("the format can be given", "[info]") {
  const Images images;
  const auto outcome = run_tool({"info", "-f", "raw", "--output=json", images.path("v3.qcow2")});
  REQUIRE(outcome.ok());
  CHECK(json::parse(outcome.out)["format"] == "raw");
  const auto wrong = run_tool({"info", "--format=qcow2", images.path("disk.raw")});
  CHECK(wrong.exit_code == 1);
  CHECK_THAT(wrong.err,
             Catch::StartsWith("virt-compact: error: " + images.path("disk.raw") + ": "));
}

TEST_CASE("-q prints nothing and -v prints more", "[info]") {
  const Images images;
  const std::string path = images.path("snapshots.qcow2");
  const auto quiet = run_tool({"info", "-q", path});
  CHECK(quiet.ok());
  CHECK(quiet.out.empty());
  const auto plain = run_tool({"info", path});
  const auto verbose = run_tool({"info", "-v", path});
  CHECK_THAT(verbose.out,
             Catch::StartsWith(plain.out) && Catch::Contains("\n    L1 table: 1 entries at 0x") &&
                 Catch::Contains("\n    header extension: 0x6803f857 (feature names), "));
}

TEST_CASE("info follows the backing chain", "[info]") {
  const support::TempDirectory folder;
  support::run_ok({"qemu-img", "create", "-q", "-f", "raw", folder / "base.raw", "1M"});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw",
                   folder / "middle.qcow2"});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2",
                   folder / "top.qcow2"});
  const std::string top = folder / "top.qcow2";
  const json got = our_info(top, "--backing-chain");
  check_superset(qemu_info(top, "--backing-chain"), got, "");
  CHECK(got.size() == 3);
  const auto human = run_tool({"info", "--backing-chain", top});
  CHECK_THAT(human.out, Catch::Contains("\n\nimage: " + folder / "middle.qcow2" + "\n") &&
                            Catch::Contains("\n\nimage: " + folder / "base.raw" + "\n"));
  // Reports the available images even if the chain is broken.
  support::run_ok({"rm", folder / "base.raw"});
  const auto broken = run_tool({"info", "--backing-chain", "--output=json", top});
  CHECK(broken.exit_code == 1);
  CHECK(json::parse(broken.out).size() == 2);
  CHECK(broken.err == "virt-compact: error: " + folder / "middle.qcow2" + ": backing file: " +
                          folder / "base.raw" + ": No such file or directory\n");
}

TEST_CASE("info detects a backing chain that contains itself", "[info]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "image.qcow2", "-F",
                   "qcow2", path, "1M"});
  const auto outcome = run_tool({"info", "--backing-chain", path});
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Catch::Contains("leads back to this file"));
}

TEST_CASE("info shows the use of space and the fragmentation", "[info]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1G"});
  support::run_ok({"qemu-io", "-c", "write 64k 64k", "-c", "write 0 64k", "-c", "write 128k 64k",
                   "-c", "write -c 192k 64k", path});
  const json info = our_info(path);
  CHECK(info["space"]["data"] == 3 * 65536);
  CHECK(info["space"]["compressed"] == 65536);
  CHECK(info["space"]["allocated"] == info["space"]["live"]);
  CHECK(info["space"]["leaked"] == 0);
  // The second cluster is stored before the first.
  CHECK(info["fragmentation"]["runs"] == 3);
  CHECK(info["fragmentation"]["seeks"] == 0);
  CHECK(info["fragmentation"]["compressed-clusters"] == 1);
  CHECK_THAT(run_tool({"info", path}).out,
             Catch::Contains("\nSpace:\n    live: ") && Catch::Contains("compressed data 64 KiB") &&
                 Catch::Contains("\n    fragmentation: 66.7 % (3 runs of "));
  const json quick = our_info(path, "--quick");
  CHECK(!quick.contains("space"));
  CHECK(!quick.contains("fragmentation"));
}

TEST_CASE("info shows the readable properties of a damaged image", "[info]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1G"});
  support::run_ok({"qemu-io", "-c", "write 0 1M", path});
  support::run_ok({"qemu-img", "snapshot", "-c", "one", path});
  const json sound = our_info(path);

  SECTION("a truncated snapshot table") {
    support::patch_file(path, 60, std::vector<std::byte>{std::byte{0}, std::byte{0}, std::byte{9}});
    const auto outcome = run_tool({"info", "--output=json", path});
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::StartsWith("virt-compact: error: " + path + ": "));
    const json info = json::parse(outcome.out);
    CHECK(info["virtual-size"] == 1 << 30);
    CHECK(info["space"]["data"] == sound["space"]["data"]);
    CHECK(info["missing"].size() == 1);
  }
  SECTION("an L2 table past the end of the file") {
    const json header = our_info(path);
    std::ifstream file(path, std::ios::binary);
    file.seekg(40);
    uint64_t l1 = 0;
    for (int i = 0; i < 8; ++i) l1 = l1 << 8 | static_cast<unsigned char>(file.get());
    support::patch_file(path, l1, std::vector<std::byte>{std::byte{0x80}, std::byte{0x40}});
    const auto outcome = run_tool({"info", "--output=json", path});
    CHECK(outcome.ok());
    CHECK_THAT(outcome.err, Catch::StartsWith("virt-compact: warning: " + path + ": the tables "));
    CHECK(json::parse(outcome.out)["damage"]["count"] == 1);
  }
}

TEST_CASE("the image's own names of features take precedence", "[info]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "1M"});
  CHECK(our_info(path)["features"]["compatible"] == json({"lazy refcounts"}));
  // Sets another compatible bit that has no name.
  support::patch_file(path, 87, std::vector<std::byte>{std::byte{0x81}});
  CHECK(our_info(path)["features"]["compatible"] == json({"lazy refcounts", "unknown bit 7"}));
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto at = bytes.find("lazy refcounts");
  REQUIRE(at != std::string::npos);
  support::patch_file(path, at, std::vector<std::byte>{std::byte{'L'}});
  CHECK_THAT(run_tool({"info", path}).out,
             Catch::Contains("Features:\n    compatible: Lazy refcounts, unknown bit 7\n"));
}

TEST_CASE("info shows the size of a server's disk", "[info]") {
  const auto outcome = run_tool({"info", "--output=json", "[", "nbdkit", "memory", "1G", "]"});
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  const json info = json::parse(outcome.out);
  CHECK(info["virtual-size"] == 1 << 30);
  CHECK(info["format"] == "raw");
  CHECK(!info.contains("actual-size"));
  CHECK_THAT(run_tool({"info", "http://localhost/disk"}).err,
             Catch::StartsWith("virt-compact: error: 'http://localhost/disk': "));
}

TEST_CASE("a file that is not an image is refused in one line", "[info]") {
  const support::TempDirectory folder;
  support::write_file(folder / "empty", std::string());
  support::write_file(folder / "short", std::string("QFI\xfb\0\0\0\3", 8));
  support::run_ok({"mkfifo", folder / "fifo"});
  const std::vector<std::pair<std::string, std::string>> cases = {
      {folder.path(), "is a directory, not a disk image"},
      {folder / "fifo", "is a FIFO, not a disk image"},
      {folder / "empty", "the file is empty"},
      {folder / "nowhere", "No such file or directory"},
      {folder / "short", ""},
  };
  for (const auto& [path, message] : cases) {
    const auto outcome = run_tool({"info", path});
    CAPTURE(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.out.empty());
    CHECK_THAT(outcome.err, Catch::StartsWith("virt-compact: error: " + path + ": " + message));
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
  }
}
