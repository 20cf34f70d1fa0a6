// Reads tables of a damaged file, as far as they are readable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Caches the last piece read.  Not thread-safe.
class LenientReader {
 public:
  // The unit in which data is lost, bytes.
  static constexpr uint64_t kUnit = 512;

  // `storage` must outlive the reader.
  explicit LenientReader(const Storage& storage) : storage_(storage) {}

  // Returns the `length` bytes at `at`, which must not cross a unit; nullptr if they are unreadable
  // or partly past the end of the file.  Valid until the next call.
  const std::byte* get(HostOffset at, uint64_t length);
  // Returns a big-endian word; nullopt if it is unreadable.
  std::optional<uint64_t> word(HostOffset at);

 private:
  void load(uint64_t at);

  const Storage& storage_;
  uint64_t begin_ = UINT64_MAX;
  std::vector<std::byte> bytes_;
  std::vector<uint16_t> readable_;  // bytes of each unit, from its start
};

}  // namespace vc::qcow2
