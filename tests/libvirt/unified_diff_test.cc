#include "libvirt/unified_diff.h"

#include "tests/catch_text.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using libvirt::unified_diff;

TEST_CASE("a diff shows three lines around a change", "[diff]") {
  CHECK(unified_diff("a\nb\n", "a\nb\n", "f").empty());
  CHECK(unified_diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nx\n6\n7\n8\n9\n", "f") ==
        "--- f\n+++ f\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+x\n 6\n 7\n 8\n");
  CHECK(unified_diff("a", "b", "f") ==
        "--- f\n+++ f\n@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+b\n"
        "\\ No newline at end of file\n");
}

TEST_CASE("patch can apply the diff", "[diff]") {
  const support::TempDirectory folder;
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(30); ++i) {
    support::Random random(seed + i);
    CAPTURE(seed + i);
    std::string before, after;
    for (uint64_t line = random.between(1, 60); line > 0; --line) {
      // Repeated lines may mislead the search.
      std::string text = random.chance(30) ? "same\n" : std::to_string(random.below(50)) + "\n";
      if (line == 1 && random.chance(30)) text.pop_back();
      before += text;
      if (random.chance(15)) {
        after += random.chance(70) ? "changed " + text : random.chance(50) ? "" : "new\n" + text;
      } else {
        after += text;
      }
    }
    if (before == after) continue;
    support::write_file(folder / "file", before);
    support::RunOptions options;
    options.directory = folder.path();
    options.input = unified_diff(before, after, "file");
    const auto outcome = support::run({"patch", "-p0", "--no-backup-if-mismatch"}, options);
    INFO(outcome.describe());
    INFO(options.input);
    REQUIRE(outcome.ok());
    const auto bytes = support::read_file(folder / "file");
    CHECK(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == after);
    support::run_ok({"rm", "-f", folder / "file"});
  }
}
