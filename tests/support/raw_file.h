// Raw disk images: reading, comparing and damaging files, holes not read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace vc::support {

// A file to read from.  Everything throws std::runtime_error when the system says no.
class RawFile {
 public:
  explicit RawFile(const std::string& path);
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;
  ~RawFile();

  // Bytes.
  uint64_t size() const { return size_; }
  // The range must lie within the file.  Thread-safe.
  void read(uint64_t at, std::span<std::byte> to) const;
  std::vector<std::byte> read(uint64_t at, uint64_t length) const;

  // The first stretch at or after `at` that is no hole: begins where it begins, at most `end`.
  struct Run {
    uint64_t begin;
    uint64_t end;
  };
  std::optional<Run> next_data(uint64_t at, uint64_t end) const;

  // Where the first byte of [at, at + length) is that is not zero.
  std::optional<uint64_t> first_nonzero(uint64_t at, uint64_t length) const;

 private:
  std::string path_;
  int fd_;
  uint64_t size_;
};

// Where two files first differ; the shorter one's size when it is a beginning of the other.
std::optional<uint64_t> first_difference(const std::string& a, const std::string& b);

std::vector<std::byte> read_file(const std::string& path);
void write_file(const std::string& path, std::span<const std::byte> bytes);
void write_file(const std::string& path, const std::string& text);
// Overwrites a part of an existing file.
void patch_file(const std::string& path, uint64_t at, std::span<const std::byte> bytes);
void resize_file(const std::string& path, uint64_t size);

}  // namespace vc::support
