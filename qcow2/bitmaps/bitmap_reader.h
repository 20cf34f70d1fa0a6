// Reads the bits of a persistent bitmap.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/geometry.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class BitmapReader {
 public:
  // `storage` is that of the image, and must outlive the object.
  BitmapReader(const Storage& storage, const Geometry& geometry, const Bitmap& bitmap)
      : storage_(storage), geometry_(geometry), bitmap_(bitmap) {}

  // Reads the bytes from `at` of the bitmap: bit 0 is the least significant one of byte 0.  What is
  // past its table reads as zeros.  An invalid entry of the table is an error.
  Result<void> read(uint64_t at, std::span<std::byte> to) const;

  // Returns an entry of the table, which is valid: kBitmapZeros, kBitmapOnes, or the offset of a
  // cluster.
  Result<uint64_t> entry(uint64_t index) const;

 private:
  const Storage& storage_;
  const Geometry geometry_;
  const Bitmap bitmap_;
};

}  // namespace vc::qcow2
