// A small disk of a guest. Every byte was written, and its filesystems use only a part.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::trim_test {

// A raw disk of 24 MiB with an MBR, ext4 at 1 MiB (16 MiB), swap (3 MiB) and a partition with
// unknown content. Every byte of the disk was written.
class SmallGuest {
 public:
  static constexpr uint64_t kSize = 24 << 20;
  static constexpr uint64_t kSwapAt = 17 << 20;

  explicit SmallGuest(const support::TempDirectory& folder);

  const std::string& raw() const { return raw_; }
  // Returns the problem of the guest's files on a raw disk, or an empty string.
  std::string complaint(const std::string& raw) const;
  // Same for a QCOW2 image. `check` also checks the metadata of the image.
  std::string complaint_of_image(const std::string& image, bool check = true) const;

 private:
  const support::TempDirectory& folder_;
  const std::string raw_;
};

// Runs virt-compact trim --metadata --json with `words`, which must succeed.
nlohmann::json trim(std::vector<std::string> words);

// Returns the bytes that were freed in all filesystems of a report.
uint64_t freed(const nlohmann::json& report);

}  // namespace vc::trim_test
