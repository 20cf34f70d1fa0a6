// Every kind of source with every kind of destination, as a user types them.
#include <fmt/format.h>

#include <filesystem>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace fs = std::filesystem;

using support::run_ok;
using support::TempDirectory;
using tool_test::run_script;
using tool_test::run_tool;

namespace {

// Makes a disk of 24 MiB with data, stored zeros, compressed clusters, a hole, and data at its end.
// Makes a raw file with the same content.
void make_disk(const TempDirectory& folder) {
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "24M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 3M", "-c", "write -q -P 0 3M 2M", "-c",
          "write -q -c -P 7 8M 64k", "-c", "write -q -P 9 12M 100k", "-c",
          "write -q -P 3 25100288 64k", disk});
  run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "disk.raw"});
}

void same_as_raw(const TempDirectory& folder, const std::string& format, const std::string& path) {
  const auto same =
      support::run({"qemu-img", "compare", "-f", "raw", "-F", format, folder / "disk.raw", path});
  INFO(same.describe());
  CHECK(same.exit_code == 0);
  if (format != "qcow2") return;
  const auto check = support::run({"qemu-img", "check", "-q", path});
  INFO(check.describe());
  CHECK(check.exit_code == 0);
}

struct Case {
  const char* name;
  const char* words;  // in the shell
};

// Run in a folder with disk.qcow2, disk.raw and, for servers, a file to write to.
const std::vector<Case> kSources = {
    {"an image", "disk.qcow2"},
    {"a raw file", "-f raw disk.raw"},
    {"qemu-nbd", "[ qemu-nbd -r -f qcow2 disk.qcow2 ]"},
    {"nbdkit", "[ nbdkit -r file disk.raw ]"},
    {"a pipe", "-"},
};

}  // namespace

TEST_CASE("every source goes to every destination", "[copy_places]") {
  const TempDirectory folder;
  make_disk(folder);
  for (const Case& source : kSources) {
    CAPTURE(source.name);
    const bool piped = std::string(source.words) == "-";
    const std::string begin =
        fmt::format("set -o pipefail; cd '{}'; {} \"$VIRT_COMPACT\" copy -q --force ",
                    folder.path(), piped ? "cat disk.raw |" : "");
    const auto copy = [&](const std::string& options, const std::string& destination) {
      const auto done = run_script(begin + options + " " + source.words + " " + destination);
      INFO(done.describe());
      CHECK(done.exit_code == 0);
      CHECK(done.err.empty());
    };
    copy("--verify", "out.qcow2");
    same_as_raw(folder, "qcow2", folder / "out.qcow2");
    copy("--verify -c", "small.qcow2");
    same_as_raw(folder, "qcow2", folder / "small.qcow2");
    copy("--verify -O raw", "out.raw");
    same_as_raw(folder, "raw", folder / "out.raw");
    copy("-O raw", "- > streamed.raw");
    same_as_raw(folder, "raw", folder / "streamed.raw");
    run_ok({"truncate", "-s", "24M", folder / "served.raw"});
    copy("--verify", "[ nbdkit file served.raw ]");
    same_as_raw(folder, "raw", folder / "served.raw");
    copy("", "null:");

    // The output through a pipe equals the file.
    copy("", "- | cat > streamed.qcow2");
    CHECK_FALSE(support::first_difference(folder / "out.qcow2", folder / "streamed.qcow2"));
    copy("-c", "- | cat > streamed.qcow2");
    CHECK_FALSE(support::first_difference(folder / "small.qcow2", folder / "streamed.qcow2"));
    if (piped) continue;
    copy("-c --spool=none -o preallocation=metadata", "- | cat > streamed.qcow2");
    copy("-c -o preallocation=metadata", "file.qcow2");
    CHECK_FALSE(support::first_difference(folder / "file.qcow2", folder / "streamed.qcow2"));
    same_as_raw(folder, "qcow2", folder / "file.qcow2");
  }
}

TEST_CASE("a reader that closes the pipe is an error, not a crash", "[copy_places]") {
  const TempDirectory folder;
  make_disk(folder);
  for (const char* options : {"", "-c", "-c --spool=none", "-O raw"}) {
    CAPTURE(options);
    const auto done = run_script(
        fmt::format("cd '{}'; {{ \"$VIRT_COMPACT\" copy -q {} disk.qcow2 -; echo $? >&2; }} | "
                    "head -c 100 >/dev/null",
                    folder.path(), options));
    CHECK(done.err == "virt-compact: error: standard output: the reader has closed the pipe\n1\n");
  }
}

TEST_CASE("an image cannot come from a pipe", "[copy_places]") {
  const TempDirectory folder;
  make_disk(folder);
  const auto done = run_script(
      fmt::format("cd '{}'; \"$VIRT_COMPACT\" copy -q - out.qcow2 <disk.qcow2", folder.path()));
  CHECK(done.exit_code == 1);
  CHECK_THAT(done.err, Catch::Contains("a QCOW2 image, which cannot be read from a pipe"));
  CHECK_FALSE(support::run({"test", "-e", folder / "out.qcow2"}).ok());
}

TEST_CASE("a usual command line of qemu-img convert works", "[copy_places]") {
  const TempDirectory folder;
  make_disk(folder);
  const std::string out = folder / "new.qcow2";
  const auto done = run_tool({"copy", "-p", "-O", "qcow2", "-c", "-o",
                              "compat=1.1,cluster_size=1M,lazy_refcounts=on,preallocation=metadata",
                              folder / "disk.qcow2", out});
  INFO(done.describe());
  REQUIRE(done.exit_code == 0);
  same_as_raw(folder, "qcow2", out);
  const auto map = run_ok({"qemu-img", "map", "--output=json", out}).out;
  CHECK_THAT(map, Catch::Contains("\"zero\": true") && Catch::Contains("\"offset\""));
  // Writes use the preallocated clusters, and the image stays valid.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 5M 3M", "-c", "write -q -P 6 0 1000", "-c",
          "read -q -P 5 5M 3M", "-c", "read -q -P 6 0 1000", "-c", "read -q -P 0 20M 1M", out});
  CHECK(support::run({"qemu-img", "check", "-q", out}).exit_code == 0);
}

TEST_CASE("creation options take effect in the image", "[copy_places]") {
  const TempDirectory folder;
  make_disk(folder);
  const std::string out = folder / "new.qcow2";
  const auto info_after = [&](const std::string& options) {
    const auto done =
        run_tool({"copy", "-q", "--force", "-o", options, folder / "disk.qcow2", out});
    INFO(done.describe());
    REQUIRE(done.exit_code == 0);
    same_as_raw(folder, "qcow2", out);
    return run_ok({"qemu-img", "info", "-f", "qcow2", out}).out;
  };
  CHECK_THAT(info_after("compat=0.10"), Catch::Contains("compat: 0.10"));
  CHECK_THAT(info_after("refcount_bits=1,cluster_size=4k"),
             Catch::Contains("refcount bits: 1\n") && Catch::Contains("cluster_size: 4096"));
  CHECK_THAT(info_after("extended_l2=on,lazy_refcounts=on,compression_type=zstd"),
             Catch::Contains("extended l2: true") && Catch::Contains("lazy refcounts: true") &&
                 Catch::Contains("compression type: zstd"));
  CHECK_THAT(info_after(fmt::format("data_file={},data_file_raw=on", folder / "guest.data")),
             Catch::Contains("data file raw: true"));
  same_as_raw(folder, "raw", folder / "guest.data");
  for (const char* how : {"falloc", "full"}) {
    info_after(fmt::format("preallocation={}", how));
    const auto blocks = std::stoull(run_ok({"stat", "-c", "%b", out}).out);
    CHECK(blocks * 512 >= (24 << 20));
  }
  // Without options, the source's settings are kept.
  run_ok({"qemu-img", "convert", "-O", "qcow2", "-o",
          "cluster_size=16k,extended_l2=on,refcount_bits=64,lazy_refcounts=on", folder / "disk.raw",
          folder / "special.qcow2"});
  REQUIRE(run_tool({"copy", "-q", "--force", folder / "special.qcow2", out}).exit_code == 0);
  CHECK_THAT(run_ok({"qemu-img", "info", "-f", "qcow2", out}).out,
             Catch::Contains("cluster_size: 16384") && Catch::Contains("extended l2: true") &&
                 Catch::Contains("refcount bits: 64") && Catch::Contains("lazy refcounts: true"));
}

TEST_CASE("the disk of a server is not copied onto itself", "[copy_places]") {
  const TempDirectory folder;
  make_disk(folder);
  const auto done =
      run_script(fmt::format("cd '{}'; nbdkit -U - file disk.raw --run "
                             "'\"$VIRT_COMPACT\" copy -q \"nbd+unix:///?socket=$unixsocket\" "
                             "\"nbd+unix:///?socket=$unixsocket\"'",
                             folder.path()));
  CHECK(done.exit_code != 0);
  CHECK_THAT(done.err, Catch::Contains("source and destination are the same"));
  same_as_raw(folder, "qcow2", folder / "disk.qcow2");
}

TEST_CASE("options that exclude each other are named", "[copy_places]") {
  const TempDirectory folder;
  make_disk(folder);
  const auto refused = [&](std::vector<std::string> options, const std::string& why) {
    std::vector<std::string> words{"copy", "-q"};
    words.insert(words.end(), options.begin(), options.end());
    words.insert(words.end(), {folder / "disk.qcow2", folder / "new.qcow2"});
    const auto done = run_tool(words);
    CAPTURE(why);
    CHECK(done.exit_code == 1);
    CHECK_THAT(done.err, Catch::Contains(why));
    CHECK_FALSE(support::run({"test", "-e", folder / "new.qcow2"}).ok());
  };
  refused({"-c", "-o", "data_file=x"}, "in an external data file are never compressed");
  refused({"-o", "compat=0.10,extended_l2=on"}, "need compat=1.1");
  refused({"-o", "compat=0.10,refcount_bits=8"}, "refcounts of 16 bits only");
  refused({"-o", "cluster_size=4k,extended_l2=on"}, "clusters of 16 KiB at least");
  refused({"-o", "compression_level=5"}, "needs -c");
  refused({"--compression=zstd", "-o", "compression_type=zlib"}, "contradicts --compression=zstd");
  refused({"-c", "-O", "raw"}, "a raw disk cannot be compressed");
  refused({"-B", folder / "disk.raw"}, "is not a backing file of");
  refused({"--bitmap", "b"}, "SRC must be an NBD server");
}

TEST_CASE("-B keeps a backing file, and copies only the data on top of it", "[copy_places]") {
  const TempDirectory folder;
  make_disk(folder);
  const std::string top = folder / "top.qcow2";
  // Clusters smaller than the copy's, so that some clusters of the copy combine both images.
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "disk.qcow2",
          "-F", "qcow2", top});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 1M 8k", "-c", "write -q -z 2M 260k", "-c",
          "write -q -P 0 12M 4k", "-c", "write -q -P 8 20M 1M", top});
  const auto done = run_tool({"copy", "-q", "--verify", "--cluster-size=64k", "-B", "disk.qcow2",
                              top, folder / "new.qcow2"});
  INFO(done.describe());
  REQUIRE(done.exit_code == 0);
  run_ok({"qemu-img", "compare", top, folder / "new.qcow2"});
  run_ok({"qemu-img", "check", "-q", folder / "new.qcow2"});
  CHECK_THAT(run_ok({"qemu-img", "info", folder / "new.qcow2"}).out,
             Catch::Contains("backing file: disk.qcow2 ") &&
                 Catch::Contains("backing file format: qcow2"));
  const auto length = std::stoull(run_ok({"stat", "-c", "%s", folder / "new.qcow2"}).out);
  CHECK(length < (2 << 20));
}

TEST_CASE("a dirty bitmap brings an earlier copy up to date", "[copy_places]") {
  const TempDirectory folder;
  make_disk(folder);
  const std::string script = fmt::format(
      "cd '{}'; qemu-img bitmap --add disk.qcow2 since && "
      "\"$VIRT_COMPACT\" copy -q [ qemu-nbd -r -f qcow2 disk.qcow2 ] copy.qcow2 && "
      "qemu-io -f qcow2 -c 'write -q -P 4 10M 300k' -c 'write -q -z 0 1M' disk.qcow2 && "
      "\"$VIRT_COMPACT\" copy --json --bitmap since "
      "[ qemu-nbd -r -f qcow2 -B since disk.qcow2 ] copy.qcow2 && "
      "qemu-img compare disk.qcow2 copy.qcow2 && qemu-img check -q copy.qcow2",
      folder.path());
  const auto done = run_script(script);
  INFO(done.describe());
  CHECK(done.exit_code == 0);
  // Only changed data was written.
  CHECK_THAT(done.out, Catch::Contains("\"data\": 5,"));
}

TEST_CASE("punch deallocates zeros, and does not change the content", "[copy_places]") {
  const TempDirectory folder;
  make_disk(folder);
  run_ok({"cp", "--sparse=never", folder / "disk.raw", folder / "full.raw"});
  const auto done = run_tool({"punch", "--json", "[", "nbdkit", "file", folder / "full.raw", "]"});
  INFO(done.describe());
  REQUIRE(done.exit_code == 0);
  CHECK_THAT(done.out, Catch::Contains("\"punched\""));
  same_as_raw(folder, "raw", folder / "full.raw");
  CHECK(std::stoull(run_ok({"stat", "-c", "%b", folder / "full.raw"}).out) * 512 < (8 << 20));
  const auto path = run_tool({"punch", folder / "full.raw"});
  CHECK(path.exit_code == 1);
  CHECK_THAT(path.err, Catch::Contains("is not an NBD URI"));
  const auto readonly = run_tool({"punch", "[", "nbdkit", "-r", "file", folder / "full.raw", "]"});
  CHECK(readonly.exit_code == 1);
}

TEST_CASE("the base is not visible past the end of a shorter image above it", "[copy]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base", "4M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 119 0 4M", folder / "base"});
  const std::string length = GENERATE("2M", "2100k", "512");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base", folder / "middle",
          length});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "middle",
          folder / "upper", "4M"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "upper", folder / "top",
          "4M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 3M 64k", folder / "top"});
  const auto outcome = run_tool({"copy", "-q", "--verify", "-B", folder / "base", "-F", "qcow2",
                                 folder / "top", folder / "copy"});
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  run_ok({"qemu-img", "check", "-q", folder / "copy"});
  run_ok({"qemu-img", "compare", "-q", folder / "top", folder / "copy"});
}

TEST_CASE("an external data file never replaces a file that is in use", "[copy]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base", "1M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 1M", folder / "base"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base", folder / "top"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + (folder / "foreign"),
          folder / "other", "1M"});
  fs::create_symlink(".", folder / "link");
  const auto base = support::read_file(folder / "base");
  const auto refused = [&](const std::string& data_file, const std::string& why) {
    for (const char* const force : {"--force", "-q"}) {
      const auto outcome = run_tool(
          {"copy", "-q", force, "-o", "data_file=" + data_file, folder / "top", folder / "copy"});
      INFO(outcome.describe());
      CHECK(outcome.exit_code == 1);
      if (std::string(force) == "--force") CHECK_THAT(outcome.err, Catch::Contains(why));
    }
  };
  refused("base", "data file: ");
  refused("top", "data file: ");
  refused("copy", "is the image itself");
  refused("./copy", "is the image itself");
  refused("link/copy", "is the image itself");
  refused("foreign", "exists already");
  CHECK_FALSE(fs::exists(folder / "copy"));
  CHECK((support::read_file(folder / "base") == base));
  run_ok({"qemu-io", "-f", "qcow2", "-c", "read -P 7 0 1M", folder / "top"});

  // A second copy may replace the image and its data file.
  const std::vector<std::string> good{
      "copy",         "-q",           "--force", "-o", "data_file=" + (folder / "data"),
      folder / "top", folder / "copy"};
  for (int i = 0; i < 2; ++i) {
    const auto outcome = run_tool(good);
    INFO(outcome.describe());
    REQUIRE(outcome.ok());
    run_ok({"qemu-img", "compare", "-q", folder / "top", folder / "copy"});
  }
  refused("copy", "is the image itself");
  run_ok({"qemu-img", "compare", "-q", folder / "top", folder / "copy"});
}

TEST_CASE("a redirection does not overwrite the source", "[copy]") {
  const TempDirectory folder;
  make_disk(folder);
  run_ok({"qemu-img", "convert", "-O", "raw", folder / "disk.qcow2", folder / "raw"});
  for (const char* const name : {"disk.qcow2", "raw"}) {
    const auto before = support::read_file(folder / name);
    for (const char* const how : {"1<>\"$1\"", ">>\"$1\""}) {
      const auto outcome =
          run_script(std::string("\"$VIRT_COMPACT\" copy \"$1\" - ") + how, {folder / name});
      INFO(outcome.describe());
      CHECK(outcome.exit_code == 1);
      CHECK_THAT(outcome.err, Catch::Contains("standard output: source and destination"));
      CHECK((support::read_file(folder / name) == before));
    }
  }
  REQUIRE(run_script("\"$VIRT_COMPACT\" copy -q \"$1\" - >\"$2\"",
                     {folder / "disk.qcow2", folder / "copy"})
              .ok());
  run_ok({"qemu-img", "compare", "-q", folder / "disk.qcow2", folder / "copy"});
}
