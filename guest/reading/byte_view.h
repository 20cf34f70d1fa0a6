// The bytes of a disk, or of a volume that lies on it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "guest/reading/block.h"
#include "guest/reading/ranges.h"
#include "qcow2/read/disk.h"

namespace vc::guest {

class ByteView {
 public:
  virtual ~ByteView() = default;

  // Bytes.
  virtual uint64_t size() const = 0;
  // Fills `to` from `at` on.  Returns an error for a range that leaves the view, and for every read
  // after a cancellation.
  Result<void> read(uint64_t at, std::span<std::byte> to) const;
  Result<Block> block(uint64_t at, uint64_t length) const;
  // Adds where ranges of the view lie: to the builder with the number of the disk, of which there
  // are enough.  Ranges that leave the view are cut.
  virtual void to_disks(const Ranges& ranges, std::vector<Ranges::Builder>& out) const = 0;

 protected:
  // [at, at + to.size ()) is within the view.
  virtual Result<void> fetch(uint64_t at, std::span<std::byte> to) const = 0;
  virtual bool is_cancelled() const { return false; }
};

// A whole disk.
class DiskView : public ByteView {
 public:
  // `number` counts the disks of a guest, from 0 on.  `cancel` must outlive the view; nullptr: it
  // cannot be cancelled.
  explicit DiskView(size_t number, const Cancel* cancel = nullptr)
      : number_(number), cancel_(cancel) {}

  void to_disks(const Ranges& ranges, std::vector<Ranges::Builder>& out) const override;

 private:
  bool is_cancelled() const override { return cancel_ != nullptr && cancel_->requested(); }

  const size_t number_;
  const Cancel* const cancel_;
};

// An image of ours.  The disk must outlive the view.
class ImageView final : public DiskView {
 public:
  ImageView(const qcow2::Disk& disk, size_t number, const Cancel* cancel = nullptr)
      : DiskView(number, cancel), disk_(disk) {}

  uint64_t size() const override { return disk_.size(); }

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override;

  const qcow2::Disk& disk_;
};

// A volume made of pieces of other views, one after the other: a partition is one piece, a logical
// volume may have many.
class MappedView final : public ByteView {
 public:
  struct Piece {
    uint64_t begin;  // bytes, in this view
    uint64_t length;
    std::shared_ptr<const ByteView> view;
    uint64_t at;  // bytes, in `view`
  };

  // The pieces cover [0, end of the last) without a gap, each within its view.
  explicit MappedView(std::vector<Piece> pieces) : pieces_(std::move(pieces)) {}

  uint64_t size() const override;
  void to_disks(const Ranges& ranges, std::vector<Ranges::Builder>& out) const override;

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override;
  // The piece that `at` lies in, or nothing past the end.
  std::vector<Piece>::const_iterator piece_at(uint64_t at) const;

  const std::vector<Piece> pieces_;
};

// [begin, begin + length) of `view`; the range is within it.
std::shared_ptr<const ByteView> window(std::shared_ptr<const ByteView> view, uint64_t begin,
                                       uint64_t length);

}  // namespace vc::guest
