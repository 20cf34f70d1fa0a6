#include "tests/appliance/unclean_ntfs.h"

#include <bit>
#include <stdexcept>

namespace vc::test {

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kSector = 512;
constexpr size_t kRecord = 1024;  // bytes of an MFT record
constexpr uint32_t kDataAttribute = 0x80;

uint64_t number(const std::string& bytes, size_t at, size_t width) {
  if (at + width > bytes.size()) throw std::runtime_error("this is no NTFS");
  uint64_t value = 0;
  for (size_t i = width; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

void put(std::string& bytes, size_t at, uint64_t value, size_t width) {
  for (size_t i = 0; i < width; ++i, value >>= 8) bytes.at(at + i) = static_cast<char>(value);
}

// Returns a restart page with one client that has the log open (layout: headers of Linux and
// ntfs-3g).
std::string restart_page(uint64_t log_size) {
  constexpr size_t kArea = 64;            // offset in the page
  constexpr size_t kClient = kArea + 64;  // offset in the page
  constexpr size_t kSequence = 30;        // offset in the page
  std::string page(kPage, '\0');
  page.replace(0, 4, "RSTR");
  put(page, 4, kSequence, 2);
  put(page, 6, kPage / kSector + 1, 2);
  put(page, 16, kPage, 4);
  put(page, 20, kPage, 4);
  put(page, 24, kArea, 2);
  put(page, 26, 1, 2);
  put(page, 28, 1, 2);
  put(page, kArea + 8, 1, 2);        // clients
  put(page, kArea + 10, 0xffff, 2);  // no free client
  put(page, kArea + 16, 67 - static_cast<uint64_t>(std::bit_width(log_size)), 4);
  put(page, kArea + 20, kClient - kArea + 160, 2);
  put(page, kArea + 22, kClient - kArea, 2);
  put(page, kArea + 24, log_size, 8);
  put(page, kArea + 36, 48, 2);
  put(page, kArea + 38, 64, 2);
  put(page, kClient + 16, 0xffff, 2);
  put(page, kClient + 18, 0xffff, 2);
  put(page, kClient + 28, 8, 4);
  for (size_t i = 0; i < 4; ++i) page[kClient + 32 + 2 * i] = "NTFS"[i];
  // Each sector ends with a number. The array in front keeps the bytes that it replaces.
  put(page, kSequence, 1, 2);
  for (size_t i = 0; i < kPage / kSector; ++i) {
    const size_t end = (i + 1) * kSector - 2;
    put(page, kSequence + 2 + 2 * i, number(page, end, 2), 2);
    put(page, end, 1, 2);
  }
  return page;
}

}  // namespace

LogPages unclean_log(const ReadPartition& read) {
  const std::string boot = read(0, kSector);
  const uint64_t cluster = number(boot, 11, 2) * number(boot, 13, 1);
  // The log is file number 2.
  const std::string record = read(number(boot, 0x30, 8) * cluster + 2 * kRecord, kRecord);
  size_t attribute = number(record, 20, 2);
  while (number(record, attribute, 4) != kDataAttribute)
    attribute += number(record, attribute + 4, 4);
  const uint64_t size = number(record, attribute + 48, 8);
  const size_t run = attribute + number(record, attribute + 32, 2);
  const uint64_t widths = number(record, run, 1);
  LogPages pages;
  pages.at = number(record, run + 1 + (widths & 15), widths >> 4) * cluster;
  pages.bytes = restart_page(size) + restart_page(size);
  return pages;
}

}  // namespace vc::test
