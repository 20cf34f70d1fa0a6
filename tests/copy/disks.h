// Small disks to copy, and copying them in one line.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "copy/copier.h"
#include "tests/support/random.h"

namespace vc::test {

// The bytes of a disk of `size` bytes: stretches of zeros, of text-like bytes that compress, and of
// noise, none of them aligned to anything.
std::vector<std::byte> lived_in_bytes(uint64_t seed, size_t size);
// The same in a raw file, with holes where a 4 KiB block is zeros.
void make_lived_in_raw(const std::string& path, uint64_t seed, size_t size);

// What a copy told on its way: it must not fall, and must not pass the total.
class Watcher final : public Progress {
 public:
  void update(uint64_t done, uint64_t total) override;
  // Called at each update.
  std::function<void(uint64_t done)> on_update;
  uint64_t last = 0;
  uint64_t total = 0;
  bool fell = false;
  size_t updates = 0;
};

// Options for a copy from `source` to `destination`.
copy::CopyOptions from_to(const std::string& source, const std::string& destination);
// Copies.  Without an error, progress has ended at its total.
Result<copy::CopySummary> run_copy(const copy::CopyOptions& options);

// What QEMU has against `image`, whose disk should be that of the raw file `raw`: empty if nothing.
std::string qemu_complaint(const std::string& image, const std::string& raw);

}  // namespace vc::test
