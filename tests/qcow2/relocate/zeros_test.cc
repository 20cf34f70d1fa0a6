// Zeros that an image stores are removed, and all of its states stay, whenever the power fails.
#include <algorithm>

#include "base/byte_order.h"
#include "base/zero_bytes.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/references.h"
#include "qcow2/relocate/image_zeros.h"
#include "storage/padded_read.h"
#include "tests/catch_text.h"
#include "tests/qcow2/relocate/crash_trial.h"
#include "tests/qcow2/relocate/image_states.h"
#include "tests/qcow2/relocate/relocation.h"
#include "tests/qcow2/write/crash_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using namespace qcow2;
using support::Random;
using support::run_ok;
using test::Bytes;
using test::free_leaks;
using test::judge;
using test::States;

namespace {

std::unique_ptr<ImageZeros> open(const std::shared_ptr<Storage>& storage,
                                 ImageZeros::Options options) {
  auto it = ImageZeros::open(storage, nullptr, std::move(options));
  REQUIRE_OK(it);
  return std::move(*it);
}

uint64_t remove_zeros(const std::shared_ptr<Storage>& storage, ImageZeros::Options options) {
  const auto it = open(storage, std::move(options));
  REQUIRE_OK(it->run({}));
  return it->freed();
}

// Adds zeros that are stored as data, in whole clusters and in parts of them.
void write_zeros(const std::string& path, Random& random, unsigned cluster_bits) {
  std::vector<std::string> command{"qemu-io", "-f", "qcow2", "-d", "unmap"};
  for (unsigned i = 0; i < 12; ++i) {
    const uint64_t cluster = uint64_t{1} << cluster_bits;
    const uint64_t part = random.chance(70) ? cluster : cluster / 8;
    const std::string place = std::to_string(random.below(90) * cluster / 2 / 512 * 512) + " " +
                              std::to_string(std::max<uint64_t>(random.between(1, 6) * part, 512));
    command.insert(command.end(), {"-c", "write -q -P 0 " + place});
  }
  command.push_back(path);
  // QEMU refuses some writes to images whose refcounts are narrow.
  (void)support::run(command);
}

test::MadeShape make_disk(const std::string& path, Random& random) {
  const auto shape = test::make_churned(path, random);
  write_zeros(path, random, shape.cluster_bits);
  return shape;
}

// Returns the plain clusters that read as zeros for every entry, in images without subclusters.
uint64_t stored_zeros(const std::shared_ptr<Storage>& storage) {
  auto header = Header::read(*storage);
  REQUIRE_OK(header);
  const auto image = Image::open(storage, *header, nullptr, std::make_shared<TableCache>(0));
  REQUIRE_OK(image);
  const auto references = References::find(**image);
  REQUIRE_OK(references);
  const Geometry geometry = header->geometry();
  if (geometry.extended_l2()) return 0;
  std::map<uint64_t, bool> reads_zeros;  // by place
  REQUIRE_OK(references->visit_pointers(
      References::Level::kClusters, [&](const References::Pointer& it) -> Result<void> {
        const L2Entry entry{it.word, 0};
        if (entry.compressed()) return {};
        Bytes bytes(geometry.cluster_size());
        RETURN_IF_ERROR(read_padded(*storage, entry.host(), bytes));
        const bool zero = entry.zero_flag() || is_zero(bytes);
        reads_zeros.try_emplace(entry.host().value(), true).first->second &= zero;
        return {};
      }));
  return static_cast<uint64_t>(
      std::ranges::count_if(reads_zeros, [](const auto& it) { return it.second; }));
}

}  // namespace

TEST_CASE("an image without stored zeros has all of its states") {
  const uint64_t images = support::iterations(16);
  uint64_t freed = 0;
  for (uint64_t i = 0; support::more_iterations(i, images, freed > 0); ++i) {
    const uint64_t seed = support::base_seed() + 13000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = make_disk(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    const auto storage =
        std::make_shared<MemoryStorage>("image", support::read_file(folder / "disk"));
    free_leaks(storage);
    const States states = test::states_of(storage);
    const uint64_t before = test::clusters_of(*storage, shape.cluster_bits);
    const uint64_t stored = stored_zeros(storage);
    const uint64_t bytes =
        remove_zeros(storage, test::small_batches<ImageZeros::Options>(random, shape.cluster_bits));
    judge(storage, states, false);
    CHECK(bytes >= stored << shape.cluster_bits);
    CHECK(stored_zeros(storage) == 0);
    CHECK(remove_zeros(storage,
                       test::small_batches<ImageZeros::Options>(random, shape.cluster_bits)) == 0);
    test::shrink(storage);
    judge(storage, states, false);
    // Compressed clusters may be packed worse.
    const uint64_t after = test::clusters_of(*storage, shape.cluster_bits);
    CHECK((after + (bytes >> shape.cluster_bits) <= before || shape.compressed));
    freed += bytes;
    support::write_file(folder / "after", storage->bytes());
    run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "after"});
    run_ok({"qemu-img", "compare", "-q", folder / "disk", folder / "after"});
  }
  CAPTURE(support::base_seed());
  CHECK(freed > 0);
}

TEST_CASE("a loss of power while zeros are removed leaks clusters at most") {
  const uint64_t images = support::iterations(8);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + 14000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = make_disk(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    test::CrashTrial trial(folder / "disk", seed, random);
    const auto go_on = [&](const std::shared_ptr<Storage>& crashed,
                           const test::CrashTrial::Staying& staying) {
      auto options = test::small_batches<ImageZeros::Options>(random, shape.cluster_bits);
      options.staying = staying;
      remove_zeros(crashed, std::move(options));
    };
    auto options = test::small_batches<ImageZeros::Options>(random, shape.cluster_bits);
    options.progress = [&](uint64_t, uint64_t) { trial.judge_crashes(go_on); };
    remove_zeros(trial.storage(), std::move(options));
    trial.judge_end(go_on);
  }
}

TEST_CASE("a failed write or a stop while zeros are removed leaves all states") {
  const uint64_t images = support::iterations(6);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + 15000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = make_disk(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    const auto storage = std::make_shared<test::CrashStorage>(support::read_file(folder / "disk"));
    free_leaks(storage);
    const States states = test::states_of(storage);
    storage->fail_after(random.between(1, 10));
    (void)open(storage, test::small_batches<ImageZeros::Options>(random, shape.cluster_bits))
        ->run({});
    storage->fail_after(0);
    judge(storage, states, true);

    const bool leaks = free_leaks(storage);
    Cancel stop;
    auto options = test::small_batches<ImageZeros::Options>(random, shape.cluster_bits);
    options.staying = test::staying_of(*storage);
    uint64_t reports = random.below(4);
    options.progress = [&](uint64_t, uint64_t) {
      if (reports-- == 0) stop.request();
    };
    REQUIRE_OK(open(storage, std::move(options))->run(stop));
    judge(storage, states, leaks);
  }
}

TEST_CASE("zeros of subclusters over a backing file become entries without data") {
  const support::TempDirectory folder;
  const std::string base = folder / "base";
  const std::string disk = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "1M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 0 1M", base});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-F", "qcow2", "-b",
          base, disk});
  // Zeros in two of 32 subclusters, in all of them, and next to data.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 0 4k 4k", "-c", "write -q -P 0 64k 64k",
          "-c", "write -q -P 0 128k 8k", "-c", "write -q -P 7 160k 2k", "-c",
          "write -q -z -u 192k 2k", "-c", "write -q -P 0 194k 2k", disk});
  run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "before"});
  const auto storage = std::make_shared<MemoryStorage>("image", support::read_file(disk));
  CHECK(remove_zeros(storage, {}) == uint64_t{3} << 16);
  support::write_file(disk, storage->bytes());
  run_ok({"qemu-img", "check", "-q", "-f", "qcow2", disk});
  run_ok({"qemu-img", "compare", "-q", disk, folder / "before"});
}

TEST_CASE("zeros stay where the format has no entry for them") {
  const support::TempDirectory folder;
  const auto header_of = [&](const std::vector<std::string>& options) {
    std::vector<std::string> create{"qemu-img", "create", "-q", "-f", "qcow2"};
    create.insert(create.end(), options.begin(), options.end());
    create.push_back(folder / "disk");
    create.emplace_back("1M");
    run_ok(create);
    const auto header = Header::read(MemoryStorage("image", support::read_file(folder / "disk")));
    REQUIRE_OK(header);
    return *header;
  };
  run_ok({"qemu-img", "create", "-q", "-f", "raw", folder / "base", "1M"});
  CHECK(ImageZeros::can_remove(header_of({})));
  CHECK(ImageZeros::can_remove(header_of({"-F", "raw", "-b", folder / "base"})));
  CHECK(ImageZeros::can_remove(header_of({"-o", "compat=0.10"})));
  CHECK_FALSE(
      ImageZeros::can_remove(header_of({"-o", "compat=0.10", "-F", "raw", "-b", folder / "base"})));
  CHECK_FALSE(ImageZeros::can_remove(header_of({"-o", "data_file=" + (folder / "data")})));
}
