// Data in the order of guests keeps all states, whenever the power fails.
#include <algorithm>

#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"
#include "qcow2/read/qcow2_layer.h"
#include "qcow2/relocate/image_order.h"
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

// Orders with small batches and windows, so that there are many.
void order(const std::shared_ptr<Storage>& storage, Random& random, unsigned cluster_bits,
           const std::function<void()>& progress = {}, const Cancel& cancel = {},
           const test::CrashTrial::Staying& staying = {}) {
  ImageOrder::Options options;
  options.staying = staying;
  options.batch_bytes = random.between(1, 20) << cluster_bits;
  options.most_pointers = random.between(40, 500);
  if (progress) options.progress = [progress](uint64_t, uint64_t) { progress(); };
  const auto it = ImageOrder::open(storage, nullptr, options);
  REQUIRE_OK(it);
  REQUIRE_OK((*it)->run(cancel));
  if ((*it)->stopped()) return;
  const auto again = ImageOrder::open(storage, nullptr, options);
  REQUIRE_OK(again);
  const auto misplaced = (*again)->misplaced();
  REQUIRE_OK(misplaced);
  REQUIRE(*misplaced == 0);
}

// The plain data of the active disk is in ascending order.
void require_order(const std::shared_ptr<Storage>& storage) {
  auto header = Header::read(*storage);
  REQUIRE_OK(header);
  auto image = Image::open(storage, *header, nullptr, std::make_shared<TableCache>(1 << 20));
  REQUIRE_OK(image);
  const auto active = open_active_layer(*image);
  REQUIRE_OK(active);
  const Disk disk({*active});
  std::vector<Extent> extents;
  REQUIRE_OK(disk.map(GuestOffset(0), disk.size(), extents));
  HostOffset last(0);
  for (const Extent& it : extents) {
    if (it.kind != ExtentKind::kData) continue;
    CAPTURE(it.guest.value(), it.host.value(), last.value());
    REQUIRE(it.host > last);
    last = it.host;
  }
}

}  // namespace

TEST_CASE("an ordered image has its data in the order of the guest, and all of its states") {
  const uint64_t images = support::iterations(8);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + 5000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = test::make_churned(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    const auto storage =
        std::make_shared<MemoryStorage>("image", support::read_file(folder / "disk"));
    free_leaks(storage);
    const States states = test::states_of(storage);
    test::shrink(storage);
    const uint64_t before = test::clusters_of(*storage, shape.cluster_bits);
    order(storage, random, shape.cluster_bits);
    judge(storage, states, false);
    require_order(storage);
    test::shrink(storage);
    judge(storage, states, false);
    require_order(storage);
    REQUIRE(test::clusters_of(*storage, shape.cluster_bits) <= before);
    support::write_file(folder / "after", storage->bytes());
    run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "after"});
    run_ok({"qemu-img", "compare", "-q", folder / "disk", folder / "after"});
  }
}

TEST_CASE("a loss of power while an image is ordered leaks clusters at most") {
  const uint64_t images = support::iterations(5);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + 6000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = test::make_churned(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    test::CrashTrial trial(folder / "disk", seed, random);
    const auto go_on = [&](const std::shared_ptr<Storage>& crashed,
                           const test::CrashTrial::Staying& staying) {
      order(crashed, random, shape.cluster_bits, {}, {}, staying);
    };
    order(trial.storage(), random, shape.cluster_bits, [&] { trial.judge_crashes(go_on); });
    trial.judge_end(go_on);
    require_order(trial.storage());
  }
}

TEST_CASE("VM states and their disks stay as they are") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk";
  constexpr uint64_t kSize = 1 << 20;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=1k", disk,
          std::to_string(kSize)});
  run_ok({"qemu-io", "-t", "unsafe", "-c", "write -q -P 1 0 500k", disk});
  support::RunOptions monitor;
  monitor.input = "savevm one\nsavevm two\nquit\n";
  run_ok({"qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-m", "16",
          "-S", "-drive", "if=virtio,format=qcow2,file=" + disk, "-monitor", "stdio"},
         monitor);
  run_ok({"qemu-img", "snapshot", "-d", "one", disk});
  run_ok({"qemu-io", "-t", "unsafe", "-d", "unmap", "-c", "write -q -P 2 0 100k", disk});
  const auto storage = std::make_shared<MemoryStorage>("image", support::read_file(disk));
  free_leaks(storage);
  const States states = test::states_of(storage);
  const Bytes& state = states.at("snapshot two");
  REQUIRE(state.size() > kSize);
  REQUIRE(std::any_of(state.begin() + kSize, state.end(),
                      [](std::byte it) { return it != std::byte{0}; }));
  Random random(support::base_seed());
  const uint64_t before = test::clusters_of(*storage, 10);
  test::shrink(storage);
  REQUIRE(test::clusters_of(*storage, 10) < before);
  order(storage, random, 10);
  judge(storage, states, false);
}

TEST_CASE("a stopped run of ordering leaves a consistent image") {
  const uint64_t images = support::iterations(4);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + 7000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const auto shape = test::make_churned(folder / "disk", random);
    CAPTURE(seed, shape.recipe);
    const auto storage =
        std::make_shared<MemoryStorage>("image", support::read_file(folder / "disk"));
    free_leaks(storage);
    const States states = test::states_of(storage);
    Cancel stop;
    uint64_t reports = random.below(6);
    order(
        storage, random, shape.cluster_bits,
        [&] {
          if (reports-- == 0) stop.request();
        },
        stop);
    judge(storage, states, false);
    test::shrink(storage);
    judge(storage, states, false);
    order(storage, random, shape.cluster_bits);
    judge(storage, states, false);
  }
}
