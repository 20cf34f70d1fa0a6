// Whatever a table holds, blanks are between its columns.

#include <algorithm>
#include <sstream>

#include "tests/catch_text.h"
#include "tool/report/bench_report.h"
#include "tool/report/measure_report.h"
#include "tool/report/space_report.h"
#include "tool/report/trim_report.h"
#include "tool/text/snapshot_list.h"

using namespace vc;

namespace {

const std::string kLong(60, 'n');

// The words of the line that has `mark`; a size has two of them.
std::vector<std::string> words_of_line(const std::string& text, const std::string& mark) {
  const size_t at = text.find(mark);
  REQUIRE(at != std::string::npos);
  const size_t begin = text.rfind('\n', at) + 1;
  std::istringstream line(text.substr(begin, text.find('\n', at) - begin));
  std::vector<std::string> words;
  for (std::string word; line >> word;) words.push_back(word);
  return words;
}

using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("columns of snapshots never touch", "[columns]") {
  qcow2::Snapshot it;
  it.id = kLong;
  it.name = kLong;
  it.vm_state_size = 999 << 20;
  it.vm_clock_nanoseconds = UINT64_MAX;
  it.instruction_count = UINT64_MAX - 1;
  const auto words = words_of_line(tool::snapshot_list({it}), kLong);
  REQUIRE(words.size() == 8);
  CHECK(words[0] == kLong);
  CHECK(words[1] == kLong);
  CHECK(words[2] == "999");
  CHECK(words[6] == "5124095:34:33.709");
  CHECK(words[7] == "18446744073709551614");
}

TEST_CASE("columns of filesystems never touch", "[columns]") {
  const tool::Palette plain(false);
  appliance::TrimReport trimmed;
  appliance::TrimmedSpace space;
  space.device = space.type = kLong;
  space.size = 999 << 20;
  space.used = 998 << 20;
  space.freed = 997 << 20;
  space.outcome = appliance::TrimmedSpace::Outcome::kZeroFilled;
  trimmed.spaces = {space};
  CHECK(words_of_line(tool::trim_report(trimmed, plain), kLong) ==
        Words{kLong, kLong, "999", "MiB", "998", "MiB", "997", "MiB", "filled", "with", "zeros"});

  tool::SpaceReport report;
  guest::Volume volume;
  volume.device = volume.type = kLong;
  volume.size = 999 << 20;
  volume.free = 1 << 20;
  volume.verdict = guest::Reading::Verdict::kFree;
  report.inspection.volumes = {volume};
  report.free_data = {111 << 10};
  CHECK(words_of_line(tool::space_report(report, plain), kLong) ==
        Words{kLong, kLong, "999", "MiB", "998", "MiB", "1", "MiB", "111", "KiB"});
}

TEST_CASE("columns of a benchmark never touch", "[columns]") {
  bench::Load load;
  load.count = 1;
  bench::Measurement slow;
  slow.requests = 1;
  slow.block = 4096;
  slow.elapsed = std::chrono::duration<double>(1e10);
  slow.tally.latency.add(10'000'000'000'000'000'000U);  // 300 years
  const auto words = words_of_line(tool::bench_report(slow, load), "  latency");
  REQUIRE(words.size() == 13);
  for (size_t i = 1; i < words.size(); i += 2) {
    CHECK(words[i].size() >= 11);
    CHECK(words[i + 1] == "s");
  }

  bench::Measurement fast = slow;
  fast.elapsed = std::chrono::duration<double>(1e-10);
  bench::Comparison both;
  both.rounds = {{slow, slow}, {slow, fast}, {slow, slow}};
  bench::ComparisonOptions options;
  options.load = load;
  const auto spread = words_of_line(tool::bench_report(both, options), "  spread");
  REQUIRE(spread.size() == 6);
  CHECK(spread[1] == "0%");
  CHECK(spread[2].back() == '%');
  CHECK(spread[2].size() > 13);
}

TEST_CASE("columns of measured sizes never touch", "[columns]") {
  tool::MeasuredField field;
  field.cluster_bits = 16;
  field.measured.file_size = 999 << 20;
  tool::MeasuredField other = field;
  other.codec = qcow2::CompressionType::kZstd;
  CHECK(words_of_line(tool::measure_table_text({field, other}), "64 KiB") ==
        Words{"64", "KiB", "999", "MiB", "*", "999", "MiB"});
}
