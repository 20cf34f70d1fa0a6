// A compressed file, or one with the suffix of another format, is not taken for a disk unless the
// user sets the format.

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

using tool_test::run_script;
using tool_test::run_tool;
using Words = std::vector<std::string>;

struct Compressor {
  const char* name;
  const char* command;  // converts standard input to standard output
};
const std::vector<Compressor> kCompressors = {
    {"xz", "xz -c"}, {"gzip", "gzip -c"}, {"zstd", "zstd -q -c"}, {"bzip2", "bzip2 -c"}};

void compress(const Compressor& how, const std::string& from, const std::string& to) {
  const auto outcome = run_script(std::string(how.command) + " < \"$1\" > \"$2\"", {from, to});
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
}

}  // namespace

TEST_CASE("a compressed file is refused by name, whatever it is called", "[compressed]") {
  const support::TempDirectory folder;
  const std::string raw = folder / "disk.raw";
  support::write_file(raw, std::string(100000, 'x'));
  for (const Compressor& how : kCompressors) {
    for (const char* name : {"/disk.img", "/disk.qcow2", "/disk.raw.packed"}) {
      const std::string packed = folder.path() + name;
      compress(how, raw, packed);
      for (const Words& command : std::vector<Words>{{"copy", packed, folder / "out"},
                                                     {"copy", "--dry-run", packed, folder / "out"},
                                                     {"info", packed},
                                                     {"map", packed},
                                                     {"measure", packed},
                                                     {"space", packed},
                                                     {"compare", packed, raw},
                                                     {"compare", raw, packed},
                                                     {"bench", "-c", "1", packed},
                                                     {"snapshot", "-l", packed},
                                                     {"flatten", packed, folder / "out"},
                                                     {"optimize", "--no-trim", packed},
                                                     {"check", packed},
                                                     {"check", "-f", "qcow2", packed}}) {
        const auto outcome = run_tool(command);
        INFO(support::shell_line(command) << outcome.describe());
        CHECK_FALSE(outcome.ok());
        CHECK_THAT(outcome.err, Catch::Contains(std::string("compressed with ") + how.name) &&
                                    Catch::Contains(packed));
      }
      CHECK(run_tool({"check", packed}).exit_code == 63);
      // With -f raw, it is accepted as a disk.
      CHECK(run_tool({"info", "-f", "raw", packed}).ok());
      CHECK(run_tool({"copy", "-q", "--force", "-f", "raw", "-O", "raw", packed, folder / "same"})
                .ok());
      CHECK(run_tool({"compare", "-f", "raw", "-F", "raw", packed, folder / "same"}).ok());
    }
    const auto piped =
        run_script(std::string(how.command) + " < \"$1\" | \"$VIRT_COMPACT\" copy - \"$2\"",
                   {raw, folder / "piped"});
    CHECK(piped.exit_code == 1);
    CHECK_THAT(piped.err, Catch::Contains(std::string("compressed with ") + how.name));
  }
  // A backing file without a recorded format is probed, too.
  const std::string over = folder / "over.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.img", "-F", "raw", over});
  CHECK(run_tool({"info", over}).ok());
}

TEST_CASE("the command that the message advises works", "[compressed]") {
  const support::TempDirectory folder;
  const std::string raw = folder / "disk.raw";
  support::write_file(raw, std::string(1 << 20, 'x'));
  for (const Compressor& how : {kCompressors[0], kCompressors[1]}) {
    const std::string packed = folder / "packed";
    compress(how, raw, packed);
    const auto outcome =
        run_tool({"copy", "--force", "[", "nbdkit", std::string("--filter=") + how.name, "file",
                  packed, "]", folder / "copy.qcow2"});
    INFO(outcome.describe());
    CHECK(outcome.ok());
    CHECK(run_tool({"compare", raw, folder / "copy.qcow2"}).ok());
  }
}

TEST_CASE("a file that is named as a QCOW2 image must be one", "[compressed]") {
  const support::TempDirectory folder;
  for (const char* name : {"/lost.qcow2", "/LOST.QCOW2", "/old.qcow"}) {
    const std::string lost = folder.path() + name;
    support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", lost, "1M"});
    support::run_ok({"dd", "if=/dev/zero", "of=" + lost, "bs=512", "count=1", "conv=notrunc"});
    for (const Words& command : std::vector<Words>{
             {"copy", lost, folder / "out"}, {"info", lost}, {"check", lost}, {"map", lost}}) {
      const auto outcome = run_tool(command);
      INFO(support::shell_line(command) << outcome.describe());
      CHECK(outcome.exit_code == (command.front() == "check" ? 63 : 1));
      CHECK_THAT(outcome.err, Catch::Contains("its header is lost"));
    }
    CHECK(run_tool({"info", "-f", "raw", lost}).ok());
  }
}

TEST_CASE("a DST whose name suggests another format causes a warning", "[compressed]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"});
  const auto warned = [&](const Words& options, const std::string& name) {
    Words command = {"copy", "--dry-run", disk, folder.path() + "/" + name};
    command.insert(command.end(), options.begin(), options.end());
    const auto outcome = run_tool(command);
    INFO(outcome.describe());
    CHECK(outcome.ok());
    return outcome.err.find("although its name suggests") != std::string::npos;
  };
  CHECK(warned({}, "x.raw"));
  CHECK(warned({}, "x.vmdk"));
  CHECK(warned({}, "x.QCOW2.xz"));
  CHECK(warned({"-O", "raw"}, "y.qcow2"));
  CHECK(warned({"-O", "raw"}, "y.QCOW2"));
  CHECK_FALSE(warned({}, "x.qcow2"));
  CHECK_FALSE(warned({}, "x.qcow"));
  CHECK_FALSE(warned({}, "x.img"));
  CHECK_FALSE(warned({}, "disk"));
  CHECK_FALSE(warned({"-O", "raw"}, "x.raw"));
  CHECK_FALSE(warned({"-O", "raw"}, "x.iso"));
  CHECK_FALSE(warned({"-q"}, "x.raw"));
}
