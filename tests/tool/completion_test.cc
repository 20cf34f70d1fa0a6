#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

// Returns what bash offers for the last of `words`, one per line.
std::string complete(const std::vector<std::string>& words, const std::string& folder = "/",
                     const std::string& setting = "") {
  std::vector<std::string> arguments = {folder,
                                        tool_test::source_root() + "/tool/virt-compact.bash"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  const auto outcome =
      tool_test::run_script(setting +
                                "source \"$2\"; cd \"$1\"; shift 2; COMP_WORDS=(\"$VIRT_COMPACT\" "
                                "\"$@\"); COMP_CWORD=$#; "
                                "_virt_compact; printf '%s\\n' \"${COMPREPLY[@]}\"",
                            arguments);
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK(outcome.err.empty());
  return outcome.out;
}

}  // namespace

TEST_CASE("bash completes commands, options, values and files", "[completion]") {
  CHECK_THAT(complete({""}), Catch::Contains("copy\n") && Catch::EndsWith("\nhelp\n"));
  CHECK(complete({"-q", "i"}) == "info\n");
  CHECK_THAT(complete({"help", "co"}), Catch::Contains("copy\n"));
  CHECK(complete({"copy", "--c"}) == "--compression\n--cluster-size\n--connections\n--color\n");
  CHECK(complete({"info", "--ou"}) == "--output\n");
  CHECK(complete({"copy", "-f", ""}) == "qcow2\nraw\n");
  CHECK(complete({"bench", "-t", "d"}) == "directsync\n");
  CHECK(complete({"copy", "--color", "=", "a"}) == "auto\nalways\n");
  CHECK(complete({"copy", "--progress", "="}) == "bar\njson\nnone\n");
  CHECK(complete({"copy", "--threads", ""}) == "\n");
  CHECK(complete({"nightly", "--p"}) == "--policy\n--progress\n");

  const support::TempDirectory folder;
  support::write_file(folder / "disk one.qcow2", std::string("x"));
  support::write_file(folder / "other", std::string("x"));
  CHECK(complete({"copy", "d"}, folder.path()) == "disk one.qcow2\n");
}

TEST_CASE("bash completes lists, and options with a special meaning in one command",
          "[completion]") {
  CHECK(complete({"copy", "-o", "comp"}) == "compat=\ncompression_type=\ncompression_level=\n");
  CHECK(complete({"copy", "-o", "compression_type", "=", "z"}) == "zlib\nzstd\n");
  CHECK(complete({"copy", "-o", "compression_type", "="}) == "zlib\nzstd\n");
  CHECK(complete({"copy", "-o", "compression_type=z"}) ==
        "compression_type=zlib\ncompression_type=zstd\n");
  CHECK(complete({"copy", "-o", "compat", "=", "1.1,ref"}) == "1.1,refcount_bits=\n");
  CHECK(complete({"copy", "-o", "compat", "=", "1.1,extended_l2", "=", "o"}) == "on\noff\n");
  CHECK(complete({"copy", "-o", "compat=1.1,extended_l2=o"}) ==
        "compat=1.1,extended_l2=on\ncompat=1.1,extended_l2=off\n");
  CHECK(complete({"measure", "--options", "=", "compat", "=", "0"}) == "0.10\n");
  CHECK(complete({"optimize", "--options", "lazy"}) == "lazy_refcounts=\n");
  CHECK(complete({"bench", "-o", "c"}) == "\n");
  CHECK(complete({"check", "-r", ""}) == "leaks\nall\n");
  CHECK(complete({"check", "--repair", "=", "a"}) == "all\n");
  CHECK(complete({"copy", "-r", ""}) == "\n");
  CHECK(complete({"trim", "--drop", "sh"}) == "shadows\n");
  CHECK(complete({"optimize", "--drop", "pagefile,s"}) ==
        "pagefile,swapfile\npagefile,shadows\npagefile,swap\n");
  CHECK(complete({"trim", "--drop", "=", "pagefile,h"}) == "pagefile,hiberfile\n");
  CHECK(complete({"optimize", "--trim", "=", "a"}) == "auto\nappliance\n");
  CHECK(complete({"optimize", "--trim", "m"}) == "metadata\n");
  CHECK(complete({"copy", "-t", "write"}) == "writeback\nwritethrough\n");
}

TEST_CASE("bash completes the names of snapshots of the disk that is named", "[completion]") {
  const support::TempDirectory folder;
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "disk.qcow2", "1M"});
  for (const char* name : {"before", "behind it", "later"})
    support::run_ok({"qemu-img", "snapshot", "-c", name, folder / "disk.qcow2"});
  CHECK(complete({"snapshot", "disk.qcow2", "-d", "b"}, folder.path()) == "before\nbehind\\ it\n");
  CHECK(complete({"snapshot", "disk.qcow2", "--export", ""}, folder.path()) ==
        "before\nbehind\\ it\nlater\n");
  CHECK(complete({"copy", "disk.qcow2", "--snapshot", "=", "l"}, folder.path()) == "later\n");
  CHECK(complete({"snapshot", "-d", ""}, folder.path()) == "\n");
  CHECK(complete({"snapshot", "disk.qcow2", "-c", ""}, folder.path()) == "\n");
}

TEST_CASE("bash offers hidden files only after a dot", "[completion]") {
  const support::TempDirectory folder;
  for (const char* name : {"disk", ".hidden", ".disk.fresh"})
    support::write_file(folder / name, std::string("x"));
  CHECK(complete({"optimize", ""}, folder.path()) == "disk\n");
  CHECK(complete({"optimize", folder.path() + "/"}) == folder.path() + "/disk\n");
  CHECK(complete({"optimize", ".h"}, folder.path()) == ".hidden\n");
  CHECK(complete({"optimize", folder.path() + "/.d"}) == folder.path() + "/.disk.fresh\n");
}

TEST_CASE("bash completes the names of domains with virsh", "[completion]") {
  const support::TempDirectory folder;
  support::write_file(folder / "virsh", std::string("#!/bin/sh\nprintf 'web\\nmail\\n\\n'\n"));
  support::run_ok({"chmod", "755", folder / "virsh"});
  support::write_file(folder / "web.xml", std::string("x"));
  const std::string path = std::string("PATH=") + folder.path() + ":$PATH; ";
  CHECK(complete({"tune", "w"}, folder.path(), path) == "web.xml\nweb\n");
  CHECK(complete({"tune", "--guest", "w"}, folder.path(), path) == "web.xml\n");
  CHECK(complete({"optimize", "w"}, folder.path(), path) == "web.xml\n");
  CHECK(complete({"optimize", "--live", "w"}, folder.path(), path) == "web.xml\nweb\n");
  CHECK(complete({"optimize", "--live", "--qmp", "s", "w"}, folder.path(), path) == "web.xml\n");
  CHECK(complete({"info", "m"}, folder.path(), path) == "\n");
}
