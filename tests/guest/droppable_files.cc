#include "tests/guest/droppable_files.h"

#include <vector>

#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"

namespace vc::guest_test {

std::string noise(size_t size) {
  std::vector<std::byte> bytes(size);
  support::Random(size).fill(bytes);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_noise(const std::string& path, size_t size) {
  support::write_file(path, noise(size));
}

void write_swap_file(const std::string& path, size_t size) {
  write_noise(path, size);
  support::run_ok({"mkswap", "-q", path});
}

guest::Volume read_with_files(const std::string& path, const guest::FileKinds& kinds) {
  const ImageFile file(path, 0);
  auto inspection = guest::inspect({file.view()}, kinds);
  REQUIRE(inspection.volumes.size() == 1);
  INFO(inspection.volumes.front().why);
  CHECK(inspection.volumes.front().verdict == guest::Reading::Verdict::kFree);
  return std::move(inspection.volumes.front());
}

guest::Ranges contents_of(const guest::Volume& volume) {
  guest::Ranges::Builder all;
  for (const auto& file : volume.files)
    for (const auto& range : file.on_disks.at(0).all()) all.add(range.begin, range.end);
  return all.take();
}

void check_no_files(const std::string& path, const guest::FileKinds& kinds,
                    const std::string& why) {
  const auto volume = read_with_files(path, kinds);
  CHECK(volume.files.empty());
  CHECK_THAT(volume.no_files, Catch::Contains(why));
}

}  // namespace vc::guest_test
