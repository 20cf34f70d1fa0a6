// Leaks that may be data of a table of zeros stay where they are, and the rest moves.
#include "qcow2/relocate/image_compress.h"
#include "qcow2/relocate/image_order.h"
#include "qcow2/relocate/image_shrink.h"
#include "tests/catch_text.h"
#include "tests/qcow2/relocate/image_states.h"
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
using test::Leaks;
using test::leaks_of;
using test::States;
using test::staying_of;

namespace {

constexpr uint64_t kSector = 512;

std::vector<HostOffset> tables_of(const std::shared_ptr<Storage>& storage) {
  auto header = Header::read(*storage);
  REQUIRE_OK(header);
  const auto image = Image::open(storage, *header, nullptr, std::make_shared<TableCache>(0));
  REQUIRE_OK(image);
  const auto references = References::find(**image);
  REQUIRE_OK(references);
  const auto tables = references->tables_in_order();
  REQUIRE_OK(tables);
  return *tables;
}

// Overwrites an L2 table, or a sector of it, with zeros.
void lose_table(const std::shared_ptr<MemoryStorage>& storage, Random& random, uint64_t size) {
  const auto tables = tables_of(storage);
  if (tables.empty()) return;
  const HostOffset at = tables[random.below(tables.size())];
  const bool whole = random.chance(60);
  const uint64_t offset = whole ? 0 : random.below(size / kSector) * kSector;
  const Bytes zeros(whole ? size : kSector);
  REQUIRE_OK(storage->write(at + offset, zeros));
}

struct Lost {
  std::shared_ptr<MemoryStorage> storage;
  test::MadeShape shape;
  States states;
  Leaks leaks;
};

// An image that has lost a table; `leaks` are those that cannot be freed.
Lost make_lost(uint64_t seed, Random& random) {
  const support::TempDirectory folder;
  Lost lost;
  lost.shape = test::make_churned(folder / "disk", random);
  CAPTURE(seed, lost.shape.recipe);
  lost.storage = std::make_shared<MemoryStorage>("image", support::read_file(folder / "disk"));
  free_leaks(lost.storage);
  lose_table(lost.storage, random, uint64_t{1} << lost.shape.cluster_bits);
  free_leaks(lost.storage);
  lost.states = test::states_of(lost.storage);
  lost.leaks = leaks_of(*lost.storage);
  return lost;
}

void judge_lost(const Lost& lost) {
  judge(lost.storage, lost.states, true);
  REQUIRE((leaks_of(*lost.storage) == lost.leaks));
}

void shrink_as_predicted(const Lost& lost, Random& random) {
  ImageShrink::Options options;
  options.batch_bytes = random.between(1, 40) << lost.shape.cluster_bits;
  options.staying = staying_of(*lost.storage);
  const auto it = ImageShrink::open(lost.storage, nullptr, nullptr, options);
  REQUIRE_OK(it);
  const auto shortest = (*it)->shortest();
  REQUIRE_OK(shortest);
  REQUIRE_OK((*it)->run({}));
  judge_lost(lost);
  if (lost.shape.compressed) return;
  const uint64_t length = test::clusters_of(*lost.storage, lost.shape.cluster_bits);
  // A refcount block may become free.
  REQUIRE(length <= *shortest);
  REQUIRE(length + 2 >= *shortest);
}

void order(const Lost& lost, Random& random) {
  ImageOrder::Options options;
  options.batch_bytes = random.between(1, 20) << lost.shape.cluster_bits;
  options.most_pointers = random.between(40, 500);
  options.staying = staying_of(*lost.storage);
  const auto it = ImageOrder::open(lost.storage, nullptr, options);
  REQUIRE_OK(it);
  REQUIRE_OK((*it)->run({}));
  judge_lost(lost);
  const auto misplaced = ImageOrder::open(lost.storage, nullptr, options).value()->misplaced();
  REQUIRE_OK(misplaced);
  REQUIRE(*misplaced == 0);
}

void compress(const Lost& lost, Random& random) {
  const auto header = Header::read(*lost.storage);
  REQUIRE_OK(header);
  if (!ImageCompress::check("image", *header, {})) return;
  ImageCompress::Options options;
  options.threads = 2;
  options.batch_bytes = random.between(1, 30) << lost.shape.cluster_bits;
  options.staying = staying_of(*lost.storage);
  const auto it = ImageCompress::open(lost.storage, options);
  REQUIRE_OK(it);
  REQUIRE_OK((*it)->run({}));
  judge_lost(lost);
}

}  // namespace

TEST_CASE("leaks that may be data of a table of zeros stay, and all else is compacted") {
  const uint64_t images = support::iterations(16);
  uint64_t leaks = 0;
  for (uint64_t i = 0; support::more_iterations(i, images, leaks > 0); ++i) {
    const uint64_t seed = support::base_seed() + 11000 + i;
    Random random(seed);
    const Lost lost = make_lost(seed, random);
    CAPTURE(seed, lost.shape.recipe, lost.leaks.size());
    leaks += lost.leaks.size();
    shrink_as_predicted(lost, random);
    order(lost, random);
    compress(lost, random);
    shrink_as_predicted(lost, random);
  }
  CAPTURE(support::base_seed());
  REQUIRE(leaks > 0);
}

// The clusters of a table that only a snapshot has: its data has leaked counts, and references.
TEST_CASE("a cluster with more counts than references stays, and the file ends after it") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", disk, "4M"});
  run_ok({"qemu-io", "-f", "qcow2", "-d", "unmap", "-c", "write -q -P 1 0 1M", "-c",
          "write -q -P 2 3M 64k", disk});
  run_ok({"qemu-img", "snapshot", "-c", "one", disk});
  // The active disk gets tables of its own; its first one becomes zeros.
  run_ok({"qemu-io", "-f", "qcow2", "-d", "unmap", "-c", "write -q -P 3 3M 4k", "-c",
          "write -q -P 4 8k 4k", "-c", "write -q -P 5 3M 64k", "-c", "discard -q 0 512k", disk});
  const auto storage = std::make_shared<MemoryStorage>("image", support::read_file(disk));
  const HostOffset table = tables_of(storage).front();
  REQUIRE_OK(storage->write(table, Bytes(4096)));
  REQUIRE(free_leaks(storage));
  const Leaks leaks = leaks_of(*storage);
  REQUIRE(
      std::any_of(leaks.begin(), leaks.end(), [](const auto& it) { return it.second.first == 2; }));
  const States states = test::states_of(storage);
  ImageShrink::Options options;
  options.staying = staying_of(*storage);
  const auto shrink = ImageShrink::open(storage, nullptr, nullptr, options);
  REQUIRE_OK(shrink);
  const auto shortest = (*shrink)->shortest();
  REQUIRE_OK(shortest);
  REQUIRE_OK((*shrink)->run({}));
  REQUIRE(*shortest == test::clusters_of(*storage, 12));
  REQUIRE(leaks.rbegin()->first < storage->bytes().size());
  judge(storage, states, true);
  REQUIRE((leaks_of(*storage) == leaks));
}
