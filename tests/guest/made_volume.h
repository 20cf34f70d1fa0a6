// A fresh filesystem in a raw file, for tests that change it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::guest_test {

class MadeVolume {
 public:
  // Runs `make` with the path of a file of `size` bytes appended. The free space of the result must
  // be known.
  MadeVolume(uint64_t size, const std::vector<std::string>& make) : path_(folder_ / "volume") {
    support::write_file(path_, std::string());
    support::resize_file(path_, size);
    auto command = make;
    command.push_back(path_);
    support::run_ok(command);
    const auto as_made = read();
    INFO(as_made.why);
    REQUIRE(as_made.verdict == guest::Reading::Verdict::kFree);
    REQUIRE(as_made.free > 0);
  }

  const std::string& path() const { return path_; }
  std::string bytes(uint64_t at, uint64_t length) const {
    const auto read = support::RawFile(path_).read(at, length);
    return {reinterpret_cast<const char*>(read.data()), read.size()};
  }
  void put(uint64_t at, const std::string& bytes) const {
    support::patch_file(path_, at, std::as_bytes(std::span(bytes)));
  }
  guest::Volume read() const {
    auto inspection = inspect_files({path_});
    REQUIRE(inspection.volumes.size() == 1);
    return inspection.volumes.front();
  }
  // Checks that nothing is reported as free, for a reason that contains `why`.
  void check_doubt(const std::string& why) const {
    const auto now = read();
    INFO(now.why);
    CHECK(now.verdict == guest::Reading::Verdict::kDoubt);
    CHECK(now.free == 0);
    CHECK_THAT(now.why, Catch::Contains(why));
  }

 private:
  const support::TempDirectory folder_;
  const std::string path_;
};

}  // namespace vc::guest_test
