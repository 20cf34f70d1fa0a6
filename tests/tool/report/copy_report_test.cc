#include "tool/report/copy_report.h"

#include <nlohmann/json.hpp>

#include "tests/catch_text.h"

using namespace vc;

using namespace tool;
using copy::CopySummary;

namespace {

copy::CopyOptions options(bool compressed = false) {
  copy::CopyOptions it;
  it.source = "disk.qcow2";
  it.destination = "small.qcow2";
  if (compressed) it.compression.type = qcow2::CompressionType::kZstd;
  return it;
}

CopySummary summary() {
  CopySummary it;
  it.virtual_size = uint64_t{20} << 30;
  it.cluster_size = 64 << 10;
  it.source = FileSize{10'952'345'600, 10'844'792'832};
  it.destination = FileSize{4'402'341'000, 4'402'345'984};
  it.data_clusters = 65'123;
  it.compressed_clusters = 12'345;
  it.passed_through_clusters = 1'234;
  it.zero_clusters = 250'212;
  it.found_zero_clusters = 3'000;
  it.elapsed = std::chrono::duration<double>(34.21);
  return it;
}

std::string report(const CopySummary& it, bool compressed = false) {
  return copy_report(options(compressed), it, Palette(false));
}

}  // namespace

TEST_CASE("the summary shows the savings", "[copy_report]") {
  CHECK(
      report(summary()) ==
      "disk.qcow2 -> small.qcow2\nSaved 6 GiB (59.4%) on the disk\n\n              before       "
      "after       saved\n  on disk   10.1 GiB     4.1 GiB       6 GiB    59.4%\n  length    10.2 "
      "GiB     4.1 GiB     6.1 GiB    59.8%\n\n  clusters         327,680  of 64 KiB\n    data     "
      "       65,123\n    compressed      12,345  1,234 copied as they were\n    zero           "
      "250,212  left out; 3,000 of them held stored zeros\n\n  20 GiB disk in 34.2 s, 599 MiB/s\n");
}

TEST_CASE("the summary of a larger copy says so, with advice", "[copy_report]") {
  CopySummary it = summary();
  it.source = FileSize{1 << 30, 1 << 30};
  it.destination = FileSize{3 << 29, 3 << 29};
  CHECK_THAT(
      report(it),
      Catch::Contains("\nTakes 512 MiB more on the disk than before: -c would compress it\n") &&
          Catch::Contains("  on disk      1 GiB     1.5 GiB    -512 MiB   -50.0%\n"));
  CHECK_THAT(report(it, true), Catch::Contains("\nTakes 512 MiB more on the disk than before\n"));
  for (const uint64_t blocks : {(1 << 30) - (1 << 20), 1 << 30, (1 << 30) + (1 << 20)}) {
    it.destination->blocks = blocks;
    CHECK_THAT(report(it), Catch::Contains("\nAbout as much on the disk as before\n"));
  }
}

TEST_CASE("the lengths are compared if the blocks of the source are unknown", "[copy_report]") {
  CopySummary it = summary();
  it.source = FileSize{uint64_t{20} << 30, 0};
  CHECK_THAT(report(it), Catch::Contains("\nSaved 15.9 GiB (79.5%) in length\n"));
}

TEST_CASE("for an NBD source, only the result is shown", "[copy_report]") {
  CopySummary it = summary();
  it.source.reset();
  it.compressed_clusters = it.found_zero_clusters = 0;
  CHECK_THAT(report(it), Catch::Contains("\n4.1 GiB on the disk\n\n"
                                         "  on disk    4.1 GiB\n"
                                         "  length     4.1 GiB\n\n") &&
                             !Catch::Contains("before") && !Catch::Contains("compressed") &&
                             Catch::Contains("left out\n"));
}

TEST_CASE("an empty disk has a summary, too", "[copy_report]") {
  CopySummary it;
  it.cluster_size = 512;
  it.source = FileSize{0, 0};
  it.destination = FileSize{1 << 20, 1 << 12};
  CHECK_THAT(report(it), Catch::Contains("Takes 1 MiB more in length than before") &&
                             Catch::Contains("  0 B disk in 0.0 s\n"));
}

TEST_CASE("names in the summary cannot control the terminal", "[copy_report]") {
  copy::CopyOptions it = options();
  it.source = "a\x1b[2J\nb";
  CHECK_THAT(copy_report(it, summary(), Palette(false)),
             Catch::StartsWith("a\\x1b[2J\\x0ab -> small.qcow2\n"));
}

TEST_CASE("the JSON summary has every figure", "[copy_report]") {
  const auto json = nlohmann::json::parse(copy_report_json(options(), summary()));
  CHECK(json == nlohmann::json::parse(R"({
    "source": "disk.qcow2", "destination": "small.qcow2", "format": "qcow2",
    "virtual-size": 21474836480, "cluster-size": 65536,
    "before": {"length": 10952345600, "blocks": 10844792832},
    "after": {"length": 4402341000, "blocks": 4402345984},
    "clusters": {"data": 65123, "compressed": 12345, "passed-through": 1234,
                 "zero": 250212, "found-zero": 3000},
    "cloned": 0, "seconds": 34.21})"));

  CopySummary without = summary();
  without.source.reset();
  copy::CopyOptions strange = options();
  strange.source = "\xff\xfe.raw";  // not UTF-8
  const auto other = nlohmann::json::parse(copy_report_json(strange, without));
  CHECK_FALSE(other.contains("before"));
  CHECK_THAT(other["source"].get<std::string>(), Catch::EndsWith(".raw"));
}
