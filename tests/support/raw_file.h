// Reads, compares and damages raw disk images.  Holes are not read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace vc::support {

// A file to read from.  All functions throw std::runtime_error on errors of the system.
class RawFile {
 public:
  explicit RawFile(const std::string& path);
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;
  ~RawFile();

  // Returns the size, bytes.
  uint64_t size() const { return size_; }
  // The range must lie within the file.  Thread-safe.
  void read(uint64_t at, std::span<std::byte> to) const;
  std::vector<std::byte> read(uint64_t at, uint64_t length) const;

  // Returns the first range at or after `at` that is not a hole. It begins at `end` at the latest.
  struct Run {
    uint64_t begin;
    uint64_t end;
  };
  std::optional<Run> next_data(uint64_t at, uint64_t end) const;

  // Returns the offset of the first byte of [at, at + length) that is not zero.
  std::optional<uint64_t> first_nonzero(uint64_t at, uint64_t length) const;

 private:
  std::string path_;
  int fd_;
  uint64_t size_;
};

// Returns the first offset where two files differ. If the longer file begins with the shorter one,
// returns the size of the shorter one.
std::optional<uint64_t> first_difference(const std::string& a, const std::string& b);

std::vector<std::byte> read_file(const std::string& path);
void write_file(const std::string& path, std::span<const std::byte> bytes);
void write_file(const std::string& path, const std::string& text);
// Overwrites a part of an existing file.
void patch_file(const std::string& path, uint64_t at, std::span<const std::byte> bytes);
void resize_file(const std::string& path, uint64_t size);

}  // namespace vc::support
