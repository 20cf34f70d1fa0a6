// Moves within an image keep all of its states, whenever the power fails.
#include <algorithm>

#include "qcow2/relocate/image_shrink.h"
#include "tests/catch_text.h"
#include "tests/qcow2/relocate/crash_trial.h"
#include "tests/qcow2/relocate/image_states.h"
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
using test::clusters_of;
using test::free_leaks;
using test::judge;
using test::States;

namespace {

// Shrinks with small batches and windows, so that there are many.
ImageShrink::Options small_steps(Random& random, unsigned cluster_bits) {
  ImageShrink::Options options;
  options.batch_bytes = random.between(1, 40) << cluster_bits;
  options.most_pointers = random.between(300, 2000);
  return options;
}

std::unique_ptr<ImageShrink> open(const std::shared_ptr<Storage>& storage,
                                  ImageShrink::Options options) {
  auto shrink = ImageShrink::open(storage, nullptr, nullptr, std::move(options));
  REQUIRE_OK(shrink);
  return std::move(*shrink);
}

void run(const std::shared_ptr<Storage>& storage, ImageShrink::Options options) {
  const Cancel cancel;
  REQUIRE_OK(open(storage, std::move(options))->run(cancel));
}

}  // namespace

TEST_CASE("a shrunk image has no free clusters, and all of its states") {
  const uint64_t images = support::iterations(12);
  uint64_t shortened = 0;
  for (uint64_t i = 0; support::more_iterations(i, images, shortened > 0); ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = test::make_churned(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    const auto storage =
        std::make_shared<MemoryStorage>("image", support::read_file(folder / "disk"));
    free_leaks(storage);
    const States states = test::states_of(storage);
    const uint64_t before = clusters_of(*storage, shape.cluster_bits);
    run(storage, small_steps(random, shape.cluster_bits));
    judge(storage, states, false);
    const uint64_t after = clusters_of(*storage, shape.cluster_bits);
    REQUIRE(after <= before);
    shortened += before - after;

    const auto again = open(storage, {});
    const auto used = again->used();
    REQUIRE_OK(used);
    // Streams may leave gaps that are too short for others.
    if (!shape.compressed) REQUIRE(*used == after);

    support::write_file(folder / "after", storage->bytes());
    run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "after"});
    const auto compared =
        support::run({"qemu-img", "compare", "-q", folder / "disk", folder / "after"});
    INFO(compared.describe());
    REQUIRE(compared.ok());
  }
  CAPTURE(support::base_seed());
  REQUIRE(shortened > 0);
}

// A refcount block of such an image counts 64 clusters.
TEST_CASE("an image shrinks by the cluster of a refcount block that it no longer needs") {
  for (uint64_t clusters = 40; clusters < 72; ++clusters) {
    CAPTURE(clusters);
    const support::TempDirectory folder;
    const std::string disk = folder / "disk";
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512,refcount_bits=64",
            disk, "64K"});
    const auto bytes = [](uint64_t count) { return std::to_string(count * 512); };
    run_ok({"qemu-io", "-f", "qcow2", "-d", "unmap", "-c", "write -q -P 1 0 " + bytes(clusters),
            "-c", "discard -q 0 512", "-c", "discard -q " + bytes(clusters - 1) + " 512", disk});
    const auto storage = std::make_shared<MemoryStorage>("image", support::read_file(disk));
    run(storage, {});
    const auto used = open(storage, {})->used();
    REQUIRE_OK(used);
    REQUIRE(*used == clusters_of(*storage, 9));
  }
}

TEST_CASE("a loss of power while an image shrinks leaks clusters at most") {
  const uint64_t images = support::iterations(6);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + 1000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = test::make_churned(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    test::CrashTrial trial(folder / "disk", seed, random);
    const auto go_on = [&](const std::shared_ptr<Storage>& crashed,
                           const test::CrashTrial::Staying& staying) {
      auto options = small_steps(random, shape.cluster_bits);
      options.staying = staying;
      run(crashed, std::move(options));
    };
    auto options = small_steps(random, shape.cluster_bits);
    options.progress = [&](uint64_t, uint64_t) { trial.judge_crashes(go_on); };
    run(trial.storage(), std::move(options));
    trial.judge_end(go_on);
  }
}

TEST_CASE("a failed write leaves all states, and a cancelled run keeps what it has gained") {
  const uint64_t images = support::iterations(5);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + 2000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = test::make_churned(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    const auto storage = std::make_shared<test::CrashStorage>(support::read_file(folder / "disk"));
    free_leaks(storage);
    const States states = test::states_of(storage);
    const Cancel cancel;
    storage->fail_after(random.between(1, 60));
    (void)open(storage, small_steps(random, shape.cluster_bits))->run(cancel);
    storage->fail_after(0);
    judge(storage, states, true);

    const bool leaks = free_leaks(storage);
    Cancel stop;
    auto options = small_steps(random, shape.cluster_bits);
    options.staying = test::staying_of(*storage);
    uint64_t reports = random.below(4);
    options.progress = [&](uint64_t, uint64_t) {
      if (reports-- == 0) stop.request();
    };
    const auto shrink = open(storage, std::move(options));
    REQUIRE_OK(shrink->run(stop));
    judge(storage, states, leaks);
    const auto length = shrink->length();
    REQUIRE_OK(length);
    REQUIRE(*length == clusters_of(*storage, shape.cluster_bits));
  }
}
