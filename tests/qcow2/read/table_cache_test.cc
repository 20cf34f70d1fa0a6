#include "qcow2/read/table_cache.h"

#include <atomic>
#include <thread>

#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"

using namespace vc;

using namespace qcow2;

namespace {

// Counts the reads.
class CountingStorage final : public Storage {
 public:
  const std::string& name() const override { return name_; }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override {
    ++reads;
    if (at.value() >= 1 << 20) return size_t{0};
    for (auto& byte : to) byte = std::byte(at.value() / 4096);
    return to.size();
  }
  Result<void> write(HostOffset, std::span<const std::byte>) override { return {}; }
  Result<void> flush() override { return {}; }
  Result<uint64_t> size() const override { return uint64_t{1} << 20; }
  Result<void> resize(uint64_t) override { return {}; }
  Result<Run> run_at(HostOffset, uint64_t limit) const override { return Run{limit, true}; }

  mutable std::atomic<int> reads = 0;

 private:
  std::string name_ = "counting";
};

}  // namespace

TEST_CASE("a slice is read once, and the least recently used slice is evicted", "[cache]") {
  const CountingStorage storage;
  TableCache cache(2 * 4096);
  const auto get = [&](uint64_t index) {
    const auto slice = cache.get(storage, HostOffset(index * 4096), 4096);
    REQUIRE_OK(slice);
    CHECK((*slice)->front() == std::byte(index));
  };
  get(1);
  get(2);
  get(1);
  CHECK(storage.reads == 2);
  get(3);  // evicts 2
  get(1);
  CHECK(storage.reads == 3);
  get(2);
  CHECK(storage.reads == 4);
}

TEST_CASE("two storages do not mix", "[cache]") {
  const CountingStorage a, b;
  TableCache cache(1 << 20);
  REQUIRE_OK(cache.get(a, HostOffset(0), 512));
  REQUIRE_OK(cache.get(b, HostOffset(0), 512));
  CHECK(a.reads == 1);
  CHECK(b.reads == 1);
}

TEST_CASE("a cache smaller than a slice still works", "[cache]") {
  const CountingStorage storage;
  TableCache cache(0);
  const auto first = cache.get(storage, HostOffset(4096), 4096);
  const auto second = cache.get(storage, HostOffset(8192), 4096);
  REQUIRE_OK(first);
  REQUIRE_OK(second);
  // An evicted slice stays valid while a caller holds it.
  CHECK((*first)->front() == std::byte{1});
}

TEST_CASE("an error is not cached", "[cache]") {
  const CountingStorage storage;
  TableCache cache(1 << 20);
  REQUIRE_FAILS_WITH(cache.get(storage, HostOffset(1 << 20), 512), "the file ends at");
  REQUIRE_FAILS_WITH(cache.get(storage, HostOffset(1 << 20), 512), "the file ends at");
  CHECK(storage.reads == 2);
}

TEST_CASE("many threads get the right slices from a small cache", "[cache][threads]") {
  const CountingStorage storage;
  TableCache cache(4 * 4096);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 2000; ++i) {
        const uint64_t index = (i * 7 + t) % 11;
        const auto slice = cache.get(storage, HostOffset(index * 4096), 4096);
        if (!slice || (*slice)->back() != std::byte(index)) ++wrong;
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}
