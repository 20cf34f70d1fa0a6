// Options for a new image.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/rounding.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/encryption.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/header.h"

namespace vc::qcow2 {

struct BuildOptions {
  uint64_t size = 0;  // of the virtual disk, bytes; rounded up to 512 since QEMU counts sectors
  uint32_t version = 3;
  unsigned cluster_bits = 16;
  unsigned refcount_order = 4;
  bool extended_l2 = false;
  bool lazy_refcounts = false;
  CompressionType compression_type = CompressionType::kDeflate;
  std::string backing_file;    // empty: none
  std::string backing_format;  // empty: unspecified; at most 15 bytes
  // The name of the external data file, as stored in the image; empty: none.  With a data file,
  // guest data has the same offset there as in the guest, and compression is not possible.
  std::string data_file;
  // The unlocked encryption of the image; nullptr: none.  Compression is not possible then.  The
  // caller writes guest data encrypted, through crypto::EncryptedStorage.
  std::shared_ptr<const Encryption> encryption;
  std::vector<NewBitmap> bitmaps;
  bool data_file_raw = false;  // the image declares that the data file contains the raw disk

  Geometry geometry() const { return Geometry(cluster_bits, extended_l2); }
  uint64_t rounded_size() const { return round_up(size, Geometry::kSectorSize); }
};

// Returns an error for the user if the options contradict each other or the disk is too large for
// them.
Result<void> check(const BuildOptions& options);

}  // namespace vc::qcow2
