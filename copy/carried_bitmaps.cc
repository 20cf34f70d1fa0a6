#include "copy/carried_bitmaps.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/printable.h"
#include "qcow2/bitmaps/bitmap_bits.h"
#include "qcow2/bitmaps/bitmap_reader.h"

namespace vc::copy {

using qcow2::Bitmap;
using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

constexpr size_t kBitmapExtentsAtOnce = 4096;
constexpr uint64_t kBytesAtOnce = 64 << 10;  // of a bitmap

// Returns the reason why a bitmap cannot go along; nullptr if it can.
const char* obstacle(const Bitmap& bitmap) {
  if (bitmap.in_use())
    return "it is in use, and therefore not valid: a program that wrote to the image has not "
           "stored it";
  return bitmap.usable() ? nullptr : "it has extra data that this program does not know";
}

}  // namespace

Result<BitmapSelection> select_bitmaps(const qcow2::Image& image) {
  ASSIGN_OR_RETURN(const auto directory,
                   qcow2::parse_bitmap_directory(image.storage(), image.header()));
  BitmapSelection selection;
  if (directory.fault) {
    selection.left_out.push_back(
        fmt::format("its persistent bitmaps are not copied: their directory is damaged ({})",
                    directory.fault->what));
    return selection;
  }
  for (const Bitmap& it : directory.bitmaps) {
    const char* const why = obstacle(it);
    if (why)
      selection.left_out.push_back(
          fmt::format("bitmap '{}' is not copied: {}", printable(it.name), why));
    else
      selection.chosen.push_back(it);
  }
  return selection;
}

Result<std::unique_ptr<CarriedBitmaps>> CarriedBitmaps::open(const CopyOptions& options,
                                                             const CopySource& source,
                                                             bool to_image, uint32_t version) {
  if (options.bitmaps == BitmapChoice::kNone) return nullptr;
  const qcow2::Image* const image =
      options.original ? options.original->image().get() : source.get().image();
  // Without a demand, the reason is told only if there are bitmaps.
  const auto refuse = [&](const std::string& why) -> Result<std::unique_ptr<CarriedBitmaps>> {
    if (options.bitmaps != BitmapChoice::kValid) return fail(Error::invalid("--bitmaps: " + why));
    if (!image) return nullptr;
    ASSIGN_OR_RETURN(auto selection, select_bitmaps(*image));
    if (selection.chosen.empty() && selection.left_out.empty()) return nullptr;
    return std::unique_ptr<CarriedBitmaps>(new CarriedBitmaps(
        options, source, *image, {{}, {"its persistent bitmaps are not copied: " + why}}));
  };
  if (!to_image || options.is_update())
    return refuse("only a new QCOW2 image can have persistent bitmaps");
  if (!options.snapshot.empty())
    return refuse("the bitmaps record the changes of the disk, not those of a snapshot");
  if (options.salvage) return refuse("a salvage does not know what has changed");
  if (version < 3) return refuse("version 2 (compat=0.10) has no bitmaps");
  if (!image)
    return refuse(source.get().files().empty()
                      ? options.source + " is not a file: a server shows a disk, not its image"
                      : options.source + " is not a QCOW2 image, so it has no persistent bitmaps");
  ASSIGN_OR_RETURN(auto selection, select_bitmaps(*image));
  if (options.bitmaps == BitmapChoice::kAll && !selection.left_out.empty())
    return fail(Error::invalid(fmt::format("{}: {} (--skip-broken-bitmaps leaves it out)",
                                           image->name(), selection.left_out.front())));
  if (selection.chosen.empty() && selection.left_out.empty()) return nullptr;
  return std::unique_ptr<CarriedBitmaps>(
      new CarriedBitmaps(options, source, *image, std::move(selection)));
}

std::vector<qcow2::NewBitmap> CarriedBitmaps::bitmaps() {
  std::vector<qcow2::NewBitmap> all;
  for (const Bitmap& it : selection_.chosen) {
    qcow2::NewBitmap bitmap;
    bitmap.name = it.name;
    bitmap.flags = it.flags & Bitmap::kAuto;
    bitmap.granularity_bits = it.granularity_bits;
    bitmap.read = [this, &it](uint64_t at, std::span<std::byte> to) { return read(it, at, to); };
    all.push_back(std::move(bitmap));
  }
  return all;
}

Result<void> CarriedBitmaps::read(const Bitmap& bitmap, uint64_t at, std::span<std::byte> to) {
  RETURN_IF_ERROR(qcow2::BitmapReader(image_.storage(), image_.geometry(), bitmap).read(at, to));
  if (!bitmap.enabled()) return {};
  if (!changes_) RETURN_IF_ERROR(find_changes());
  changes_->merge_into(to, at * 8, bitmap.granularity_bits);
  return {};
}

// Returns whether the source is an overlay of the disk that has the bitmaps.
bool CarriedBitmaps::is_overlay() const {
  return options_.original && !source_.get().files().empty() &&
         source_.get().files().front()->identity() !=
             options_.original->files().front()->identity();
}

Result<void> CarriedBitmaps::find_changes() {
  unsigned finest = 63;
  for (const Bitmap& it : selection_.chosen)
    if (it.enabled()) finest = std::min(finest, it.granularity_bits);
  changes_.emplace(source_.get().size(), finest);
  if (!is_overlay() && !source_.unused()) return {};
  std::vector<Extent> extents;
  const GuestOffset end(source_.get().size());
  for (GuestOffset at; at < end; at = extents.back().end()) {
    extents.clear();
    RETURN_IF_ERROR(source_.get().map_stored(at, end - at, extents));
    RETURN_IF_ERROR(add_changes(extents));
  }
  return {};
}

Result<void> CarriedBitmaps::add_changes(const std::vector<Extent>& extents) {
  const bool overlay = is_overlay();
  for (const Extent& it : extents) {
    const bool in_overlay = overlay && it.depth == 0;
    if (in_overlay && it.kind == ExtentKind::kZero) {
      RETURN_IF_ERROR(add_stored(it.guest, it.length));
    } else if (it.reads_as_zero()) {
      continue;
    } else if (in_overlay) {
      changes_->add(it.guest, it.length);
    } else if (source_.unused()) {
      const auto& all = source_.unused()->all();
      auto range = std::partition_point(all.begin(), all.end(), [&](const guest::Range& one) {
        return one.end <= it.guest.value();
      });
      for (; range != all.end() && range->begin < it.end().value(); ++range) {
        const uint64_t from = std::max(range->begin, it.guest.value());
        changes_->add(GuestOffset(from), std::min(range->end, it.end().value()) - from);
      }
    }
  }
  return {};
}

// Adds the parts of a range where the disk stores data.
Result<void> CarriedBitmaps::add_stored(GuestOffset at, uint64_t length) {
  const qcow2::Disk disk = options_.original->disk();
  std::vector<Extent> extents;
  for (const GuestOffset end = at + length; at < end; at = extents.back().end()) {
    extents.clear();
    RETURN_IF_ERROR(disk.map(at, end - at, extents, kBitmapExtentsAtOnce));
    for (const Extent& it : extents)
      if (!it.reads_as_zero()) changes_->add(it.guest, it.length);
  }
  return {};
}

Result<void> CarriedBitmaps::verify(const Source& copy) {
  // A copy without any bitmap may be a raw disk.
  if (selection_.chosen.empty()) return {};
  const qcow2::Image& image = *copy.image();
  ASSIGN_OR_RETURN(const auto found, qcow2::read_bitmap_directory(image.storage(), image.header()));
  const auto differs = [&](const std::string& name) {
    return fail(Error::corrupt(
        fmt::format("{}: bitmap '{}' differs from what was written", copy.name(), name)));
  };
  for (size_t i = 0; i < selection_.chosen.size(); ++i) {
    const Bitmap& wanted = selection_.chosen[i];
    if (i >= found.bitmaps.size()) return differs(wanted.name);
    const Bitmap& it = found.bitmaps[i];
    if (it.name != wanted.name || it.granularity_bits != wanted.granularity_bits ||
        it.flags != (wanted.flags & Bitmap::kAuto))
      return differs(wanted.name);
    const uint64_t bits = Bitmap::bits_for(image.header().size, it.granularity_bits);
    const qcow2::BitmapReader reader(image.storage(), image.geometry(), it);
    for (uint64_t at = 0; at * 8 < bits; at += kBytesAtOnce) {
      std::vector<std::byte> expected(kBytesAtOnce);
      std::vector<std::byte> stored(kBytesAtOnce);
      RETURN_IF_ERROR(read(wanted, at, expected));
      RETURN_IF_ERROR(reader.read(at, stored));
      qcow2::clear_bits_from(expected, bits - at * 8);
      qcow2::clear_bits_from(stored, bits - at * 8);
      if (expected != stored) return differs(wanted.name);
    }
  }
  return {};
}

}  // namespace vc::copy
