// The data that a repair overwrites, to undo the repair.
//
// The file; numbers are big-endian:
//
//     8 bytes   "VCUNDO3\n" ("VCUNDO2\n": without the flags below)
//     8         old length of the image, bytes
//     4         CRC-32 of the first kSampleBytes of the old image, or of all of it
//     4         CRC-32 of the 20 bytes before this
//     records   8 offset in the image
//               4 length n, 1 to kMostBytes, and flags: kZeroed, kCut
//               n old bytes (zeros past the end of the image)
//               n new bytes (with kZeroed: zeros, not stored)
//               4 CRC-32 of the record before this
//               With kCut n is 0: the image is truncated at the offset.
//     the end   8 number of records
//               4 0
//               4 CRC-32 of these 12 bytes
//
// A record is on disk before its bytes are written to the image.  The end is written when the
// repair is complete.  A file without an end belongs to an interrupted repair: a record that is
// truncated or has a wrong checksum was never applied, nor was anything after it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "base/sync_memory.h"
#include "storage/descriptor.h"
#include "storage/directory.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class UndoFile {
 public:
  static constexpr uint32_t kMostBytes = 1 << 20;
  static constexpr uint64_t kSampleBytes = 1 << 20;

  // Creates the file, which must not exist, for the current `image`.  File and name are on disk
  // when it returns; on an error there is no file.
  static Result<std::unique_ptr<UndoFile>> create(const std::string& path, const Storage& image);
  UndoFile(const UndoFile&) = delete;
  UndoFile& operator=(const UndoFile&) = delete;
  ~UndoFile() = default;

  const std::string& path() const { return path_; }
  // Adds a record; both spans have the same length.  The record is not on disk before flush ().
  Result<void> add(HostOffset at, std::span<const std::byte> before,
                   std::span<const std::byte> after);
  // Add a record for a range to be zeroed, and for a truncation to `size` bytes.  After an error
  // the undo file is unchanged.
  Result<void> add_zeroed(HostOffset at, std::span<const std::byte> before);
  Result<void> add_cut(uint64_t size);
  // Writes the end; no records may follow.
  Result<void> finish();
  Result<void> flush();
  // Removes the file's name.
  void remove() const noexcept;

 private:
  UndoFile(std::string path, Directory folder, Descriptor fd)
      : path_(std::move(path)), folder_(std::move(folder)), fd_(std::move(fd)) {}
  Result<void> begin(const Storage& image);
  Result<void> append(std::vector<std::byte> record);

  std::string path_;
  Directory folder_;  // that contains the file
  Descriptor fd_;
  SyncMemory sync_;
  uint64_t records_ = 0;
  uint64_t length_ = 0;  // of the file, bytes, without a partly written record
};

// Restores the data of the undo file at `path`.  Returns an error without a write unless the image
// is as that repair (or a part of it, or of its undo) left it: its length, its first kSampleBytes
// and each byte of a record must have the old or the new value.  Does not detect, and keeps, other
// changes that were made in place since.  May be interrupted and repeated.
Result<void> apply_undo(const std::string& path, Storage& image);

}  // namespace vc::qcow2
