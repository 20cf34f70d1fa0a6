// Small disks to copy, and a function that copies them.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "copy/copier.h"
#include "tests/support/random.h"

namespace vc::test {

// Returns the bytes of a disk of `size` bytes: unaligned ranges of zeros, of compressible bytes,
// and of incompressible bytes.
std::vector<std::byte> lived_in_bytes(uint64_t seed, size_t size);
// Writes the same bytes to a raw file. Blocks of 4 KiB of zeros are holes.
void make_lived_in_raw(const std::string& path, uint64_t seed, size_t size);

// Records the progress of a copy, which must not decrease, and must not exceed the total.
class Watcher final : public Progress {
 public:
  void update(uint64_t done, uint64_t of) override;
  // Called at each update.
  std::function<void(uint64_t done)> on_update;
  uint64_t last = 0;
  uint64_t total = 0;
  bool fell = false;
  size_t updates = 0;
};

// Returns options for a copy from `source` to `destination`.
copy::CopyOptions from_to(const std::string& source, const std::string& destination);
// Copies, and checks that progress ends at its total unless there is an error.
Result<copy::CopySummary> run_copy(const copy::CopyOptions& options);

// Checks with QEMU that `image` is valid, and that its disk equals the raw file `raw`.  Returns the
// problem, or an empty string.
std::string qemu_complaint(const std::string& image, const std::string& raw);

}  // namespace vc::test
