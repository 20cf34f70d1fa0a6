// A small disk of a guest that is full of data, with filesystems that use a part of it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::trim_test {

// An MBR with ext4 at 1 MiB (16 MiB), swap (3 MiB) and a partition with nothing known in it, on a
// raw disk of 24 MiB every byte of which was written.
class SmallGuest {
 public:
  static constexpr uint64_t kSize = 24 << 20;
  static constexpr uint64_t kSwapAt = 17 << 20;

  explicit SmallGuest(const support::TempDirectory& folder);

  const std::string& raw() const { return raw_; }
  // What is wrong with the guest's files on a raw disk; empty: nothing.
  std::string complaint(const std::string& raw) const;
  // The same of an image of QEMU's; `check` its own metadata, too.
  std::string complaint_of_image(const std::string& image, bool check = true) const;

 private:
  const support::TempDirectory& folder_;
  const std::string raw_;
};

// virt-compact trim --metadata --json, with `words` behind it.  Requires that it succeeds.
nlohmann::json trim(std::vector<std::string> words);

// Bytes that are given back in all of a report's filesystems.
uint64_t freed(const nlohmann::json& report);

}  // namespace vc::trim_test
