// A second run on an image that is compact moves nothing.
#include "qcow2/relocate/in_place.h"
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

namespace {

class Silent final : public Progress {
 public:
  void update(uint64_t /*done*/, uint64_t /*total*/) override {}
};

InPlaceSummary compact(const std::string& path, bool compresses) {
  InPlaceOptions options;
  options.defragment = true;
  options.compress = compresses;
  options.threads = 2;
  Silent silent;
  const auto summary = compact_in_place(path, options, silent, {});
  REQUIRE_OK(summary);
  return *summary;
}

bool has_wide_refcounts(const std::string& path) {
  const MemoryStorage storage("image", support::read_file(path));
  const auto header = Header::read(storage);
  REQUIRE_OK(header);
  return header->refcount_bits() >= 16;
}

// Data that gets smaller, data that does not, and holes, in random order.
void write_mixed(const std::string& path, Random& random, unsigned cluster_bits) {
  test::Bytes noise(uint64_t{3} << cluster_bits);
  random.fill(noise);
  support::write_file(path + ".noise", noise);
  std::vector<std::string> command{"qemu-io", "-t", "unsafe", "-f", "qcow2", "-d", "unmap"};
  for (unsigned i = 0; i < 60; ++i) {
    const std::string place = std::to_string(random.below(90) << cluster_bits) + " " +
                              std::to_string(random.between(1, 3) << cluster_bits);
    const std::string word = i % 5 == 4          ? "discard -q "
                             : random.chance(50) ? "write -q -s " + path + ".noise "
                                                 : "write -q -P 7 ";
    command.insert(command.end(), {"-c", word + place});
  }
  command.push_back(path);
  // QEMU refuses some writes to images whose refcounts are narrow.
  (void)support::run(command);
}

}  // namespace

TEST_CASE("a second run with the same options moves nothing") {
  const uint64_t images = support::iterations(10);
  uint64_t compressed = 0;
  for (uint64_t i = 0; support::more_iterations(i, images, compressed > 0); ++i) {
    const uint64_t seed = support::base_seed() + 12000 + i;
    Random random(seed);
    const support::TempDirectory folder;
    const std::string disk = folder / "disk";
    const auto shape = test::make_churned(disk, random);
    write_mixed(disk, random, shape.cluster_bits);
    const bool compresses = has_wide_refcounts(disk) && random.chance(80);
    CAPTURE(seed, shape.recipe, compresses);
    run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "before"});
    compressed += compact(disk, compresses).compressed;
    const auto again = compact(disk, compresses);
    CHECK(again.moved == 0);
    CHECK(again.misplaced == 0);
    CHECK(again.before.length == again.after.length);
    run_ok({"qemu-img", "check", "-q", disk});
    run_ok({"qemu-img", "compare", "-q", disk, "-F", "raw", folder / "before"});
  }
  CAPTURE(support::base_seed());
  CHECK(compressed > 0);
}
