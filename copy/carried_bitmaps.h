// The persistent bitmaps that go along with a copy.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "copy/copy_options.h"
#include "copy/copy_source.h"
#include "qcow2/bitmaps/changed_ranges.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/read/image.h"

namespace vc::copy {

struct BitmapSelection {
  std::vector<qcow2::Bitmap> chosen;
  std::vector<std::string> left_out;  // one sentence each, with the reason; without the file's name
};

// Selects the bitmaps of `image` that can go along.  Damage to the directory leaves out all of
// them.
Result<BitmapSelection> select_bitmaps(const qcow2::Image& image);

// A copy may read otherwise than its source: unused parts are zeros, and an overlay of the disk may
// have been trimmed.  These parts are set in all enabled bitmaps, as far as the disk stores data
// there.  Memory: at most 32 MiB (qcow2/bitmaps/changed_ranges.h).
class CarriedBitmaps {
 public:
  // Selects the bitmaps as the options say.  `source` must outlive the object; late sources may
  // replace what is in it.  Returns nullptr if there are none, and an error if the options demand
  // one that cannot go along.  `to_image`: the destination is a QCOW2 image of `version`.
  static Result<std::unique_ptr<CarriedBitmaps>> open(const CopyOptions& options,
                                                      const CopySource& source, bool to_image,
                                                      uint32_t version);

  // Returns the bitmaps for the builder.  They refer to this object.
  std::vector<qcow2::NewBitmap> bitmaps();

  // Returns an error if the bitmaps of `copy` differ.
  Result<void> verify(const Source& copy);

  const BitmapSelection& selection() const { return selection_; }

 private:
  CarriedBitmaps(const CopyOptions& options, const CopySource& source, const qcow2::Image& image,
                 BitmapSelection selection)
      : options_(options), source_(source), image_(image), selection_(std::move(selection)) {}

  Result<void> read(const qcow2::Bitmap& bitmap, uint64_t at, std::span<std::byte> to);
  Result<void> find_changes();
  Result<void> add_changes(const std::vector<qcow2::Extent>& extents);
  Result<void> add_stored(GuestOffset at, uint64_t length);
  bool is_overlay() const;

  const CopyOptions& options_;
  const CopySource& source_;
  const qcow2::Image& image_;  // that has the bitmaps
  const BitmapSelection selection_;
  std::optional<qcow2::ChangedRanges> changes_;  // set by the first read of an enabled bitmap
};

}  // namespace vc::copy
