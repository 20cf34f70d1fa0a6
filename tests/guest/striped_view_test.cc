#include "guest/reading/striped_view.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "tests/catch.h"
#include "tests/support/random.h"

using namespace vc;

namespace {

constexpr uint64_t kStripe = 512;
constexpr uint64_t kRows = 20;

// A disk in which each byte depends on its offset.
class NumberedDisk final : public guest::DiskView {
 public:
  explicit NumberedDisk(size_t number) : DiskView(number), number_(number) {}

  uint64_t size() const override { return 2 * kRows * kStripe; }
  static std::byte at(size_t number, uint64_t offset) {
    return static_cast<std::byte>((number * 97 + offset / kStripe * 31 + offset) & 0xFF);
  }

 private:
  Result<void> fetch(uint64_t begin, std::span<std::byte> to) const override {
    for (size_t i = 0; i < to.size(); ++i) to[i] = at(number_, begin + i);
    return {};
  }

  const size_t number_;
};

}  // namespace

TEST_CASE("a striped volume is read where its stripes lie", "[striped]") {
  const size_t columns = GENERATE(2U, 3U, 5U);
  support::Random random(support::base_seed());
  std::vector<guest::StripedView::Column> disks;
  for (size_t i = 0; i < columns; ++i)
    disks.push_back({std::make_shared<NumberedDisk>(i), i * kStripe});
  const uint64_t size = kRows * kStripe * columns;
  const guest::StripedView view(disks, kStripe, size);
  const auto place = [&](uint64_t at) {
    const uint64_t stripe = at / kStripe;
    return std::pair(stripe % columns,
                     stripe % columns * kStripe + stripe / columns * kStripe + at % kStripe);
  };
  for (unsigned round = 0; round < 200; ++round) {
    const uint64_t begin = random.below(size);
    const uint64_t end = begin + 1 + random.below(size - begin);
    CAPTURE(columns, begin, end);
    const auto bytes = view.block(begin, end - begin);
    REQUIRE(bytes);
    std::vector<guest::Ranges::Builder> expected(columns);
    bool is_equal = true;
    for (uint64_t at = begin; at < end; ++at) {
      const auto [disk, offset] = place(at);
      is_equal = is_equal && bytes->bytes()[at - begin] == NumberedDisk::at(disk, offset);
      expected[disk].add(offset, offset + 1);
    }
    CHECK(is_equal);
    std::vector<guest::Ranges::Builder> found(columns);
    view.to_disks(guest::one_range(begin, end), found);
    for (size_t disk = 0; disk < columns; ++disk) {
      CHECK(found[disk].count() <= 1);
      CHECK((found[disk].take() == expected[disk].take()));
    }
  }
}
