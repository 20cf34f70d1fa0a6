// Disks with backing files, and with bitmaps that are not valid, are optimized live.
#include <filesystem>

#include "tests/catch_text.h"
#include "tests/live/written_disk.h"
#include "tests/support/raw_file.h"

using namespace vc;

using live_test::kMiB;
using live_test::kOriginal;
using live_test::kRun;
using live_test::stop_at;
using live_test::TestDomain;
using live_test::WrittenDisks;
using support::run_ok;

namespace fs = std::filesystem;

TEST_CASE("a bitmap that is not valid ends a live run", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  WrittenDisks disk(daemon);
  const TestDomain& domain = disk.domain();
  daemon.virsh({"checkpoint-create-as", "web", "point"});
  // QEMU stores the bitmap, starts again, and is then killed while it uses the bitmap.
  daemon.virsh({"destroy", "web"});
  domain.start();
  domain.kill_qemu();
  domain.start();
  const auto undone = domain.tool(kRun);
  INFO(undone.describe());
  CHECK(undone.exit_code == 1);
  CHECK_THAT(undone.err, Catch::Contains("bitmap 'point' is not copied") &&
                             Catch::Contains("the guest runs on its disk as before"));
  CHECK(domain.files() == kOriginal);
  disk.write_some();
  domain.kill_qemu();
  CHECK(disk.complaint() == "");
}

TEST_CASE("a disk with a backing file is optimized live as it is offline", "[live]") {
  const tune_test::LibvirtDaemon daemon;
  TestDomain::Options options;
  const TestDomain domain(daemon, options);
  const std::string base = fs::path(domain.disk()).parent_path() / "base.qcow2";
  const std::string reference = daemon.folder() + "/reference";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "24M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 0 8M", base});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
          domain.disk()});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 6 1M 1M", domain.disk()});
  run_ok({"qemu-img", "convert", "-O", "raw", domain.disk(), reference});
  const auto base_before = support::read_file(base);
  domain.define();
  domain.start();
  unsigned writes = 0;
  const auto write = [&] {
    const uint64_t at = 3 * kMiB + 512 * writes++;
    domain.write(at, 512, 100 + writes);
    support::patch_file(reference, at, std::vector<std::byte>(512, std::byte(100 + writes)));
  };
  const auto backing = [&] {
    return run_ok({"qemu-img", "info", "-U", domain.disk()}).out.find("base.qcow2") !=
           std::string::npos;
  };
  for (const bool keeps : {true, false}) {
    CAPTURE(keeps);
    std::vector<std::string> command = kRun;
    if (keeps) command.insert(command.end() - 1, {"-B", "base.qcow2", "-F", "qcow2"});
    TestDomain::Stopped run(domain, command, stop_at("copy"));
    write();
    run.kill();
    write();
    CHECK(domain.tool({"rollback", domain.disk()}).ok());
    CHECK(backing());
    const auto done = domain.tool(command);
    INFO(done.describe());
    REQUIRE(done.ok());
    CHECK((done.err.find("the data of base.qcow2 is copied") == std::string::npos) == keeps);
    CHECK(backing() == keeps);
    write();
    CHECK(domain.source(0, true) == domain.disk());
    domain.kill_qemu();
    CHECK(support::run({"qemu-img", "compare", "-F", "raw", domain.disk(), reference}).ok());
    fs::remove(domain.disk() + ".bak");
    domain.start();
  }
  CHECK(support::read_file(base) == base_before);
}
