// Dry runs of a layout.
#include <algorithm>

#include "copy/sink/qcow2_sink.h"
#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"

using namespace vc;

namespace {

// Returns the writes of an image of 64 MiB with preallocated metadata.
std::vector<std::byte> preallocated(bool dry) {
  copy::Qcow2Sink::Options options;
  options.build.size = 64 << 20;
  options.build.cluster_bits = 12;
  options.preallocate = true;
  options.dry = dry;
  qcow2::MemoryStorage out;
  const auto sink = copy::Qcow2Sink::create(out, nullptr, options);
  REQUIRE_OK(sink);
  REQUIRE_OK((*sink)->finish());
  return out.bytes();
}

// Counts L2 entries and refcounts. Every layout has a header and an L1 table.
size_t words_in_use(const std::vector<std::byte>& bytes) {
  size_t count = 0;
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8)
    count += std::any_of(bytes.begin() + static_cast<ptrdiff_t>(at),
                         bytes.begin() + static_cast<ptrdiff_t>(at + 8),
                         [](std::byte it) { return it != std::byte{0}; });
  return count;
}

}  // namespace

// Measures the amount of work instead of time: an entry for each cluster is a step for each
// cluster.
TEST_CASE("a layout that is only measured has no entry for each preallocated cluster",
          "[dry_sink]") {
  constexpr size_t kClusters = (64 << 20) / 4096;
  const auto whole = preallocated(false);
  const auto dry = preallocated(true);
  CHECK(words_in_use(whole) > kClusters);
  CHECK(words_in_use(dry) < kClusters / 2);
  CHECK(dry.size() == whole.size());
}
