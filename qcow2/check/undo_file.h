// What an image held before it was repaired, so that a repair can be taken back.
//
// The file, numbers in big endian:
//
//     8 bytes   "VCUNDO1\n"
//     8         length of the image before, bytes
//     records   8 offset in the image
//               4 length n, at most kMostBytes
//               n bytes as they were (zeros behind the end of the image)
//               n bytes as they are to be
//               4 CRC-32 of all that in this record
//
// A record is on the disk before its bytes are written to the image.  One that is cut off or whose
// sum is wrong was never acted on, nor what follows it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "qcow2/result.h"
#include "qcow2/storage.h"

namespace qcow2 {

class UndoFile {
 public:
  static constexpr uint32_t kMostBytes = 1 << 20;

  // Makes the file, which must not exist yet, for an image of `length` bytes.  It and its name are
  // on the disk when this returns.
  static Result<std::unique_ptr<UndoFile>> create(const std::string& path, uint64_t length);
  UndoFile(const UndoFile&) = delete;
  UndoFile& operator=(const UndoFile&) = delete;
  ~UndoFile();

  const std::string& path() const { return path_; }
  // Of the image before, bytes.
  uint64_t image_length() const { return image_length_; }
  // Both of one length.  Not on the disk before flush ().
  Result<void> add(HostOffset at, std::span<const std::byte> before,
                   std::span<const std::byte> after);
  Result<void> flush();

 private:
  UndoFile(std::string path, uint64_t image_length)
      : path_(std::move(path)), image_length_(image_length) {}

  std::string path_;
  uint64_t image_length_;
  int fd_ = -1;  // owned
};

// Puts back what the undo file at `path` holds.  An error, and nothing is written, if the image is
// not what that repair (or a part of it) has left: each byte must be as it was, or as it was to
// be.  May be interrupted, and done again.
Result<void> apply_undo(const std::string& path, Storage& image);

}  // namespace qcow2
