// A disk with one filesystem and much stored data of a deleted file, made without an appliance.
#pragma once

#include <cstdint>
#include <string>

#include "tests/support/temp_directory.h"

namespace vc::optimize_test {

class SmallGuest {
 public:
  static constexpr uint64_t kFreed = 31 << 20;  // less than the whole clusters of the file, bytes

  // Makes an ext4 filesystem in `folder`. `options`: of qemu-img convert -o.
  explicit SmallGuest(const support::TempDirectory& folder, const std::string& options = "");

  const std::string& disk() const { return disk_; }
  // Makes the disk as it was at first.
  void restore() const;
  // Returns what is wrong with the disk: leaks count only if `clean`. Empty: nothing.
  std::string complaint(bool clean) const;

 private:
  const std::string disk_;
  const std::string original_;
};

}  // namespace vc::optimize_test
