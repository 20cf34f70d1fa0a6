#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using tool_test::run_tool;

namespace {

constexpr uint64_t kSize = 8 << 20;

// A qcow2 and a raw image with the same bytes, and a compressed one.
class Disks {
 public:
  Disks() {
    support::write_file(folder_ / "disk.raw", std::string(kSize, 'r'));
    convert({"-O", "qcow2", "disk.raw", "disk.qcow2"});
    convert({"-c", "-O", "qcow2", "disk.raw", "small.qcow2"});
  }
  std::string operator/(const std::string& name) const { return folder_ / name; }
  std::vector<std::byte> bytes(const std::string& name) const {
    support::run_ok({"qemu-img", "convert", "-O", "raw", folder_ / name, folder_ / "bytes"});
    return support::read_file(folder_ / "bytes");
  }

 private:
  void convert(std::vector<std::string> words) {
    words.insert(words.begin(), {"qemu-img", "convert"});
    support::RunOptions here;
    here.directory = folder_.path();
    support::run_ok(words, here);
  }
  support::TempDirectory folder_;
};

json bench_json(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"bench", "--output=json"});
  const auto outcome = run_tool(arguments);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  CHECK(outcome.err.empty());
  return json::parse(outcome.out);
}

void check_latencies(const json& latency) {
  CHECK(latency["min"] > 0);
  uint64_t before = latency["min"];
  for (const char* key : {"p50", "p90", "p99", "p99.9", "max"}) {
    CAPTURE(key);
    CHECK(latency[key] >= before);
    before = latency[key];
  }
}

}  // namespace

TEST_CASE("bench reads the requested data, and changes nothing", "[bench]") {
  const Disks disks;
  for (const std::string name : {"disk.raw", "disk.qcow2", "small.qcow2"}) {
    CAPTURE(name);
    const auto before = support::read_file(disks / name);
    for (const char* order : {"--seed=3", "--random"}) {
      const json result = bench_json({"-c", "500", "-d", "3", "-s", "8k", order, disks / name});
      CHECK(result["filename"] == disks / name);
      CHECK(result["format"] == (name == "disk.raw" ? "raw" : "qcow2"));
      CHECK(result["virtual-size"] == kSize);
      CHECK(result["requests"] == 500);
      CHECK(result["bytes"] == 500 * 8192);
      CHECK(result["hole-share"] == 0);
      CHECK(result["load"]["operation"] == "read");
      CHECK(result["load"]["order"] ==
            (std::string(order) == "--random" ? "random" : "sequential"));
      check_latencies(result["latency-ns"]);
      const double seconds = result["seconds"];
      CHECK(result["iops"].get<double>() == Approx(500 / seconds));
      CHECK(result["bytes-per-second"].get<double>() == Approx(500 * 8192 / seconds));
    }
    CHECK((support::read_file(disks / name) == before));
  }
}

TEST_CASE("the text of bench has the lines of qemu-img bench, and more", "[bench]") {
  const Disks disks;
  const std::vector<std::string> options = {"-c", "200", "-d", "4",   "-s", "8k",
                                            "-S", "16k", "-o", "64k", "-t", "writeback"};
  auto theirs = options;
  theirs.insert(theirs.begin(), {"qemu-img", "bench"});
  theirs.insert(theirs.end(), {"-f", "qcow2", disks / "disk.qcow2"});
  const std::string expected = support::run_ok(theirs).out;
  auto ours = options;
  ours.insert(ours.begin(), "bench");
  ours.insert(ours.end(), {"-f", "qcow2", disks / "disk.qcow2"});
  const auto outcome = run_tool(ours);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  CHECK_THAT(outcome.out, Catch::StartsWith(expected.substr(0, expected.find("Run completed"))));
  CHECK_THAT(outcome.out, Catch::Contains("\nRun completed in ") && Catch::Contains("p99.9") &&
                              Catch::Contains(" requests/s\n"));
  ours.push_back("-q");
  CHECK(run_tool(ours).out.empty());
}

TEST_CASE("bench ends after a duration", "[bench]") {
  const Disks disks;
  const json result = bench_json({"--duration=0.2", "-d", "2", disks / "disk.qcow2"});
  CHECK(result["seconds"] >= 0.2);
  CHECK(result["requests"] > 0);
  CHECK(bench_json({"--duration=100", "-c", "5", disks / "disk.qcow2"})["requests"] == 5);
}

TEST_CASE("bench reports holes and the page cache", "[bench]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "64M"});
  support::run_ok({"qemu-io", "-c", "write 0 16M", path});
  const json result = bench_json({"-c", "1024", "-s", "64k", "-d", "2", path});
  CHECK(result["hole-share"].get<double>() == Approx(0.75).margin(0.02));
  CHECK(result["page-cache-before"]["file-length"] >= 16 << 20);
  CHECK(result["page-cache-after"]["bytes"] >= 16 << 20);
  CHECK_THAT(run_tool({"bench", "-c", "1024", "-s", "64k", path}).out,
             Catch::Contains("  holes       75% of the requests meet nothing that is stored\n") &&
                 Catch::Contains("  page cache "));
}

TEST_CASE("bench can bypass or drop the page cache", "[bench]") {
  const Disks disks;
  const auto kind = support::run_ok({"stat", "-f", "-c", "%T", disks / "disk.raw"}).out;
  if (kind == "tmpfs\n") {
    CHECK_THAT(run_tool({"bench", "-t", "none", disks / "disk.raw"}).err,
               Catch::Contains("its filesystem cannot bypass the page cache"));
    return;
  }
  for (const std::string name : {"disk.raw", "disk.qcow2", "small.qcow2"}) {
    CAPTURE(name);
    const json cold = bench_json({"-c", "100", "-s", "64k", "--drop-cache", disks / name});
    CHECK(cold["page-cache-before"]["bytes"] < cold["page-cache-before"]["file-length"]);
    CHECK(cold["page-cache-after"]["bytes"] > cold["page-cache-before"]["bytes"]);
    // Unaligned sizes and offsets go through an aligned buffer.
    const json direct =
        bench_json({"-c", "300", "-s", "3001", "-n", "-t", "none", "--drop-cache", disks / name});
    CHECK(direct["page-cache-after"]["bytes"] < 1 << 20);
  }
}

TEST_CASE("bench reads from NBD servers", "[bench]") {
  const Disks disks;
  const auto server = support::NbdServer::qemu_nbd({"-f", "qcow2", disks / "disk.qcow2"});
  const json one = bench_json({"-c", "500", "-d", "8", "-r", server.uri()});
  CHECK(one["format"] == "nbd");
  CHECK(one["virtual-size"] == kSize);
  CHECK(one["requests"] == 500);
  check_latencies(one["latency-ns"]);

  const json several =
      bench_json({"-c", "501", "-d", "7", "--connections=4", "[", "nbdkit", "memory", "8M", "]"});
  CHECK(several["requests"] == 501);
  CHECK(several["filename"] == "[ nbdkit memory 8M ]");

  CHECK_THAT(run_tool({"bench", "--drop-cache", server.uri()}).err,
             Catch::Contains("--drop-cache works only for files"));
  CHECK_THAT(run_tool({"bench", "-w", "--yes", server.uri()}).err,
             Catch::Contains("the server allows no writes"));
  CHECK_THAT(run_tool({"bench", "-d", "2", "-s", "64M", "[", "nbdkit", "--filter=blocksize-policy",
                       "memory", "128M", "blocksize-maximum=32M", "]"})
                 .err,
             Catch::Contains("accepts at most 33554432 bytes in a request"));
}

TEST_CASE("an error of the disk ends a bench", "[bench]") {
  const auto outcome = run_tool({"bench", "-d", "16", "[", "nbdkit", "--filter=error", "memory",
                                 "1M", "error-pread=EIO", "error-pread-rate=10%", "]"});
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Catch::Contains("error") && Catch::Contains(": read at 0x"));

  const support::TempDirectory folder;
  const std::string path = folder / "disk.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1M"});
  support::run_ok({"qemu-io", "-c", "write 0 1M", path});
  support::resize_file(path, 0x60000);
  const auto cut = run_tool({"bench", "-f", "qcow2", path});
  CHECK(cut.exit_code == 1);
  CHECK_THAT(cut.err, Catch::Contains(path));
}

TEST_CASE("bench writes only with -w and --yes", "[bench]") {
  const Disks disks;
  const auto before = support::read_file(disks / "disk.qcow2");
  const auto outcome = run_tool({"bench", "-w", disks / "disk.qcow2"});
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Catch::Contains("--yes"));
  CHECK(run_tool({"bench", "--yes", disks / "disk.qcow2"}).exit_code == 1);
  CHECK((support::read_file(disks / "disk.qcow2") == before));
}

TEST_CASE("bench writes only the pattern, and only where requested", "[bench]") {
  for (const std::string name : {"disk.raw", "disk.qcow2", "small.qcow2"}) {
    CAPTURE(name);
    const Disks disks;
    const json result = bench_json({"-w", "--yes", "-c", "64", "-d", "4", "-s", "4k", "-S", "64k",
                                    "-o", "1M", "--pattern=0x41", "--flush-interval=16", "-f",
                                    name == "disk.raw" ? "raw" : "qcow2", disks / name});
    CHECK(result["requests"] == 64);
    CHECK(result["flushes"] == 4);
    CHECK(result["load"]["operation"] == "write");
    std::vector<std::byte> expected(kSize, std::byte{'r'});
    for (uint64_t i = 0; i < 64; ++i) {
      const auto at = expected.begin() + static_cast<std::ptrdiff_t>((1 << 20) + i * (64 << 10));
      std::fill(at, at + 4096, std::byte{'A'});
    }
    CHECK((disks.bytes(name) == expected));
    if (name != "disk.raw") support::run_ok({"qemu-img", "check", disks / name});
  }
}

TEST_CASE("bench writes with every cache mode, and over NBD", "[bench]") {
  const Disks disks;
  for (const char* mode : {"none", "directsync", "writeback", "writethrough", "unsafe"}) {
    const auto outcome = run_tool({"bench", "-q", "-w", "--yes", "-c", "20", "-d", "2", "-t", mode,
                                   "--pattern=66", disks / "disk.qcow2"});
    INFO(outcome.describe());
    if (outcome.err.find("O_DIRECT") == std::string::npos) CHECK(outcome.ok());
  }
  support::run_ok({"qemu-img", "check", disks / "disk.qcow2"});
  const json served = bench_json({"-w", "--yes", "-c", "2048", "-s", "4k", "-t", "writethrough",
                                  "--flush-interval=512", "--no-drain", "--pattern=67", "[",
                                  "nbdkit", "file", disks / "disk.raw", "]"});
  CHECK(served["flushes"] == 4);
  CHECK((disks.bytes("disk.raw") == std::vector<std::byte>(kSize, std::byte{'C'})));
}

TEST_CASE("an image in use is not written, and an image that is written is not read", "[bench]") {
  const Disks disks;
  const auto reader = support::NbdServer::qemu_nbd({"-f", "qcow2", disks / "disk.qcow2"});
  const auto outcome = run_tool({"bench", "-w", "--yes", disks / "disk.qcow2"});
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Catch::Contains("disk.qcow2"));
  CHECK(run_tool({"bench", "-q", "-c", "5", disks / "disk.qcow2"}).ok());
}

TEST_CASE("bench compares two disks in turn", "[bench]") {
  const Disks disks;
  const json result = bench_json(
      {"-c", "100", "-d", "2", "--rounds=3", disks / "disk.qcow2", disks / "small.qcow2"});
  REQUIRE(result["rounds"].size() == 3);
  for (const json& round : result["rounds"]) {
    CHECK(round["a"]["filename"] == disks / "disk.qcow2");
    CHECK(round["b"]["filename"] == disks / "small.qcow2");
    CHECK(round["a"]["requests"] == 100);
    CHECK(round["ratio"].get<double>() == Approx(round["b"]["bytes-per-second"].get<double>() /
                                                 round["a"]["bytes-per-second"].get<double>()));
  }
  CHECK(result["ratio"]["min"] <= result["ratio"]["median"]);
  CHECK(result["ratio"]["median"] <= result["ratio"]["max"]);
  check_latencies(result["a-latency-ns"]);

  support::run_ok({"qemu-img", "resize", "-q", "-f", "raw", disks / "disk.raw", "16M"});
  const auto outcome =
      run_tool({"bench", "-c", "100", "--rounds=2", disks / "disk.raw", disks / "small.qcow2"});
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  CHECK_THAT(outcome.out, Catch::Contains("only the first 8 MiB of each are used") &&
                              Catch::Contains("\n  median ") && Catch::Contains("\n  spread "));
}

TEST_CASE("a signal ends a bench", "[bench]") {
  const Disks disks;
  const auto outcome = tool_test::run_script(
      "\"$VIRT_COMPACT\" bench --duration=100 \"$1\" & sleep 0.5; kill -TERM $!; wait $!",
      {disks / "disk.qcow2"});
  INFO(outcome.describe());
  CHECK(outcome.elapsed < std::chrono::seconds(30));
  CHECK(outcome.out.empty());
}
