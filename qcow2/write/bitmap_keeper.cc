#include "qcow2/write/bitmap_keeper.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace vc::qcow2 {

BitmapKeeper::BitmapKeeper(std::shared_ptr<Storage> storage, const Header& header,
                           BitmapDirectory directory)
    : storage_(std::move(storage)), disk_size_(header.size), directory_(std::move(directory)) {
  std::optional<unsigned> finest;
  for (const Bitmap& it : directory_.bitmaps)
    if (it.enabled()) finest = std::min(finest.value_or(it.granularity_bits), it.granularity_bits);
  if (finest) changes_ = std::make_unique<ChangedRanges>(disk_size_, *finest);
}

Result<void> BitmapKeeper::begin() {
  RETURN_IF_ERROR(mark_bitmaps_in_use(*storage_, directory_));
  begun_ = changes_ != nullptr;
  return {};
}

Result<void> BitmapKeeper::store(BitmapRewrite& rewrite) const {
  RETURN_IF_ERROR(rewrite.begin());
  for (size_t i = 0; i < directory_.bitmaps.size(); ++i) {
    const Bitmap& bitmap = directory_.bitmaps[i];
    if (bitmap.enabled())
      RETURN_IF_ERROR(
          rewrite.add(i, disk_size_, [&](std::span<std::byte> bits, uint64_t first_bit) {
            changes_->merge_into(bits, first_bit, bitmap.granularity_bits);
          }));
  }
  return rewrite.write_directory();
}

}  // namespace vc::qcow2
