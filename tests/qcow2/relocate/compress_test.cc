// Compression within an image keeps all of its states, whenever the power fails.
#include <algorithm>

#include "base/byte_order.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/references.h"
#include "qcow2/relocate/image_compress.h"
#include "tests/catch_text.h"
#include "tests/qcow2/relocate/crash_trial.h"
#include "tests/qcow2/relocate/image_states.h"
#include "tests/qcow2/relocate/relocation.h"
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

std::unique_ptr<ImageCompress> open(const std::shared_ptr<Storage>& storage,
                                    ImageCompress::Options options) {
  auto it = ImageCompress::open(storage, std::move(options));
  REQUIRE_OK(it);
  return std::move(*it);
}

void compress(const std::shared_ptr<Storage>& storage, ImageCompress::Options options) {
  const Cancel cancel;
  REQUIRE_OK(open(storage, std::move(options))->run(cancel));
}

bool can_compress(const std::shared_ptr<Storage>& storage) {
  const auto header = Header::read(*storage);
  REQUIRE_OK(header);
  const auto checked = ImageCompress::check("image", *header, {});
  CHECK(checked.has_value() == (header->refcount_bits() >= 16));
  return checked.has_value();
}

// Adds data that does not get smaller, next to data that does.
void write_noise(const std::string& path, Random& random, unsigned cluster_bits) {
  Bytes noise(uint64_t{2} << cluster_bits);
  for (std::byte& it : noise) it = static_cast<std::byte>(random.below(256));
  support::write_file(path + ".noise", noise);
  std::vector<std::string> command{"qemu-io", "-f", "qcow2"};
  for (unsigned i = 0; i < 10; ++i) {
    const std::string place =
        std::to_string(random.below(40) << cluster_bits) + " " + std::to_string(noise.size());
    command.insert(command.end(), {"-c", "write -q -s " + path + ".noise " + place});
  }
  command.push_back(path);
  // QEMU refuses some writes to images whose refcounts are narrow.
  (void)support::run(command);
}

test::MadeShape make_disk(const std::string& path, Random& random) {
  const auto shape = test::make_churned(path, random);
  write_noise(path, random, shape.cluster_bits);
  return shape;
}

struct Entries {
  uint64_t plain = 0;
  uint64_t compressed = 0;
};

Entries entries_of(const std::shared_ptr<Storage>& storage) {
  auto header = Header::read(*storage);
  REQUIRE_OK(header);
  const auto image = Image::open(storage, *header, nullptr, std::make_shared<TableCache>(0));
  REQUIRE_OK(image);
  const auto references = References::find(**image);
  REQUIRE_OK(references);
  Entries entries;
  REQUIRE_OK(references->visit_pointers(References::Level::kClusters,
                                        [&](const References::Pointer& it) -> Result<void> {
                                          const bool compressed = L2Entry{it.word, 0}.compressed();
                                          ++(compressed ? entries.compressed : entries.plain);
                                          return {};
                                        }));
  return entries;
}

}  // namespace

TEST_CASE("a compressed image is shorter, and has all of its states") {
  const uint64_t images = support::iterations(12);
  uint64_t compressed = 0;
  for (uint64_t i = 0; support::more_iterations(i, images, compressed > 0); ++i) {
    const uint64_t seed = support::base_seed() + 8000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = make_disk(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    const auto storage =
        std::make_shared<MemoryStorage>("image", support::read_file(folder / "disk"));
    free_leaks(storage);
    if (!can_compress(storage)) continue;
    const States states = test::states_of(storage);
    const uint64_t before = test::clusters_of(*storage, shape.cluster_bits);
    const Cancel cancel;
    const auto options = test::small_batches<ImageCompress::Options>(random, shape.cluster_bits);
    const Bytes untouched = storage->bytes();
    REQUIRE_OK(open(storage, options)->predict(cancel));
    REQUIRE((storage->bytes() == untouched));

    const Entries entries = entries_of(storage);
    compress(storage, options);
    judge(storage, states, false);
    test::shrink(storage);
    judge(storage, states, false);
    REQUIRE(test::clusters_of(*storage, shape.cluster_bits) <= before);
    REQUIRE(entries_of(storage).compressed >= entries.compressed);
    compressed += entries_of(storage).compressed - entries.compressed;
    support::write_file(folder / "after", storage->bytes());
    run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "after"});
    run_ok({"qemu-img", "compare", "-q", folder / "disk", folder / "after"});
  }
  CAPTURE(support::base_seed());
  REQUIRE(compressed > 0);
}

TEST_CASE("a loss of power while an image is compressed leaks clusters at most") {
  const uint64_t images = support::iterations(8);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + 9000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = make_disk(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    test::CrashTrial trial(folder / "disk", seed, random);
    if (!can_compress(trial.storage())) continue;
    const auto go_on = [&](const std::shared_ptr<Storage>& crashed,
                           const test::CrashTrial::Staying& staying) {
      auto options = test::small_batches<ImageCompress::Options>(random, shape.cluster_bits);
      options.staying = staying;
      compress(crashed, std::move(options));
    };
    auto options = test::small_batches<ImageCompress::Options>(random, shape.cluster_bits);
    options.progress = [&](uint64_t, uint64_t) { trial.judge_crashes(go_on); };
    compress(trial.storage(), std::move(options));
    trial.judge_end(go_on);
  }
}

TEST_CASE("a failed write or a stop while an image is compressed leaves all states") {
  const uint64_t images = support::iterations(6);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + 10000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = make_disk(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    const auto storage = std::make_shared<test::CrashStorage>(support::read_file(folder / "disk"));
    free_leaks(storage);
    if (!can_compress(storage)) continue;
    const States states = test::states_of(storage);
    const Cancel cancel;
    storage->fail_after(random.between(1, 60));
    (void)open(storage, test::small_batches<ImageCompress::Options>(random, shape.cluster_bits))
        ->run(cancel);
    storage->fail_after(0);
    judge(storage, states, true);

    const bool leaks = free_leaks(storage);
    Cancel stop;
    auto options = test::small_batches<ImageCompress::Options>(random, shape.cluster_bits);
    options.staying = test::staying_of(*storage);
    uint64_t reports = random.below(4);
    options.progress = [&](uint64_t, uint64_t) {
      if (reports-- == 0) stop.request();
    };
    REQUIRE_OK(open(storage, std::move(options))->run(stop));
    judge(storage, states, leaks);
  }
}

TEST_CASE("subclusters are compressed with what they read") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk";
  const std::string base = folder / "base";
  run_ok({"qemu-img", "create", "-q", "-f", "raw", base, "1M"});
  run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 9 0 1M", base});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", base, "-F",
          "raw", disk});
  // All written; written and zeros; zeros of a shared cluster; and one with a part of the backing
  // file, which stays plain.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 64k", "-c", "write -q -P 2 64k 64k",
          "-c", "write -q -P 3 128k 64k", "-c", "write -q -P 4 200k 8k", disk});
  run_ok({"qemu-img", "snapshot", "-c", "one", disk});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -z 128k 8k", disk});
  run_ok({"qemu-img", "snapshot", "-c", "two", disk});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 256k 64k", "-c", "write -q -z 260k 8k",
          disk});
  run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "before"});
  const auto storage = std::make_shared<MemoryStorage>("image", support::read_file(disk));
  const States states = test::states_of(storage);
  const Entries before = entries_of(storage);
  REQUIRE(before.compressed == 0);
  compress(storage, {});
  judge(storage, states, false);
  REQUIRE(entries_of(storage).compressed >= 3);
  REQUIRE(entries_of(storage).plain >= 1);
  support::write_file(disk, storage->bytes());
  run_ok({"qemu-img", "check", "-q", "-f", "qcow2", disk});
  run_ok({"qemu-img", "compare", "-q", disk, "-F", "raw", folder / "before"});
}

TEST_CASE("an entry that reads as zeros does not refer to the compressed data of another") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "refcount_bits=16", disk, "1M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 256k", disk});
  run_ok({"qemu-img", "snapshot", "-c", "one", disk});
  const auto storage = std::make_shared<MemoryStorage>("image", support::read_file(disk));
  // The active entry keeps the shared cluster, and reads as zeros.
  const auto header = Header::read(*storage);
  REQUIRE_OK(header);
  const uint64_t l1 = header->l1_table.value();
  const uint64_t entry = (load_be64(&storage->bytes()[l1]) & kEntryOffsetMask) + 8;
  // The active table becomes another one than that of the snapshot.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 2 0 64k", disk});
  const auto split = std::make_shared<MemoryStorage>("image", support::read_file(disk));
  const uint64_t own = (load_be64(&split->bytes()[l1]) & kEntryOffsetMask) + 8;
  REQUIRE(own != entry);
  Bytes word(8);
  store_be64(word.data(), load_be64(&split->bytes()[own]) | kEntryZero);
  REQUIRE_OK(split->write(HostOffset(own), word));
  const States states = test::states_of(split);
  test::require_sound(*split, false);
  compress(split, {});
  judge(split, states, false);
  REQUIRE(entries_of(split).compressed > 0);
}
