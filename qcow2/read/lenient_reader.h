// Reads tables of a damaged file: as much of them as there is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "storage/offset.h"
#include "storage/storage.h"

namespace qcow2 {

// Keeps the last piece that was asked for.  Not thread-safe.
class LenientReader {
 public:
  // The unit in which a table is lost, bytes.
  static constexpr uint64_t kUnit = 512;

  // `storage` must outlive it.
  explicit LenientReader(const Storage& storage) : storage_(storage) {}

  // The `length` bytes at `at`, which do not cross a unit; nullptr: they cannot be read, or some of
  // them lie past the end of the file.  Valid until the next call.
  const std::byte* get(HostOffset at, uint64_t length);
  // A big-endian word.
  std::optional<uint64_t> word(HostOffset at);

 private:
  void load(uint64_t at);

  const Storage& storage_;
  uint64_t begin_ = UINT64_MAX;
  std::vector<std::byte> bytes_;
  std::vector<char> good_;  // of each unit
};

}  // namespace qcow2
