// Makes restart pages in the log of an NTFS volume made by mkntfs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/raw_file.h"

namespace vc::guest_test {

// Returns a restart page of a volume that was shut down, or is in use.
inline std::string restart_page(uint64_t lsn, bool clean) {
  constexpr size_t kSize = 4096;
  constexpr uint16_t kNoClient = 0xFFFF;
  std::string page(kSize, '\0');
  const auto put = [&](size_t at, uint64_t value, size_t size) {
    std::memcpy(page.data() + at, &value, size);
  };
  page.replace(0, 4, "RSTR");
  put(0x04, 0x1E, 2);             // update sequence: a number, then an entry per sector
  put(0x06, kSize / 512 + 1, 2);  // its length
  put(0x10, kSize, 4);
  put(0x14, kSize, 4);
  put(0x18, 0x30, 2);
  put(0x1A, 1, 2);
  put(0x1C, 1, 2);
  put(0x30, lsn, 8);
  put(0x3C, clean ? kNoClient : 0, 2);
  // Each sector ends with the update sequence number.
  for (size_t at = 0x1E; at <= kSize; at = at == 0x1E ? 510 : at + 512) put(at, 0x0101, 2);
  return page;
}

// Returns the offset of the log of a fresh volume. mkntfs fills the log with ones.
inline uint64_t ntfs_log(const std::string& path) {
  constexpr uint64_t kStep = 4096;
  const support::RawFile file(path);
  const std::vector<std::byte> ones(kStep, std::byte{0xFF});
  for (uint64_t at = 0; at + kStep <= file.size(); at += kStep)
    if (file.read(at, kStep) == ones) return at;
  throw std::runtime_error(path + " has no log");
}

}  // namespace vc::guest_test
