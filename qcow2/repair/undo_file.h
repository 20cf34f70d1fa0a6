// What an image held before it was repaired, so that a repair can be taken back.
//
// The file, numbers in big endian:
//
//     8 bytes   "VCUNDO3\n" ("VCUNDO2\n": without the flags below)
//     8         length of the image before, bytes
//     4         CRC-32 of the image's first kSampleBytes, or of all of it, before
//     4         CRC-32 of the 20 bytes before this
//     records   8 offset in the image
//               4 length n, 1 to kMostBytes, and flags: kZeroed, kCut
//               n bytes as they were (zeros behind the end of the image)
//               n bytes as they are to be (with kZeroed: zeros, and not stored)
//               4 CRC-32 of all that in this record
//               With kCut n is 0: the image is to end at the offset.
//     the end   8 number of records
//               4 0
//               4 CRC-32 of these 12 bytes
//
// A record is on the disk before its bytes are written to the image.  The end is written when the
// repair is done.  While it is not there the repair was interrupted: then a record that is cut off
// or whose sum is wrong was never acted on, nor what follows it.
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

namespace qcow2 {

class UndoFile {
 public:
  static constexpr uint32_t kMostBytes = 1 << 20;
  static constexpr uint64_t kSampleBytes = 1 << 20;

  // Makes the file, which must not exist yet, for `image` as it is.  It and its name are on the
  // disk when this returns; on an error there is none.
  static Result<std::unique_ptr<UndoFile>> create(const std::string& path, const Storage& image);
  UndoFile(const UndoFile&) = delete;
  UndoFile& operator=(const UndoFile&) = delete;
  ~UndoFile() = default;

  const std::string& path() const { return path_; }
  // Both of one length.  Not on the disk before flush ().
  Result<void> add(HostOffset at, std::span<const std::byte> before,
                   std::span<const std::byte> after);
  // The same for a place that is to be zeros, and for a shorter image.  After an error the file is
  // as it was before the call.
  Result<void> add_zeroed(HostOffset at, std::span<const std::byte> before);
  Result<void> add_cut(uint64_t size);
  // There are no more records.
  Result<void> finish();
  Result<void> flush();
  // Takes the name away.
  void remove() const noexcept;

 private:
  UndoFile(std::string path, Directory folder, Descriptor fd)
      : path_(std::move(path)), folder_(std::move(folder)), fd_(std::move(fd)) {}
  Result<void> begin(const Storage& image);
  Result<void> append(std::vector<std::byte> record);

  std::string path_;
  Directory folder_;  // that the file is in
  Descriptor fd_;
  SyncMemory sync_;
  uint64_t records_ = 0;
  uint64_t length_ = 0;  // of the file, bytes, without a record that was written in part
};

// Puts back what the undo file at `path` holds.  An error, and nothing is written, if the image is
// not what that repair (or a part of it, or of an undoing) has left: its length, its first
// kSampleBytes and each byte of a record must be as they were, or as they were to be.  What else
// somebody has written in place since is not seen, and stays.  May be interrupted, and done again.
Result<void> apply_undo(const std::string& path, Storage& image);

}  // namespace qcow2
