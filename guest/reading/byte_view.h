// Access to the bytes of a disk, or of a volume on it.
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

  // Returns the size, bytes.
  virtual uint64_t size() const = 0;
  // Fills `to` from offset `at`. Returns an error for a range outside of the view, and for all
  // reads after a cancellation.
  Result<void> read(uint64_t at, std::span<std::byte> to) const;
  Result<Block> block(uint64_t at, uint64_t length) const;
  // Adds the places of `ranges` on the guest's disks: to the builder with the disk's number. `out`
  // must have a builder for each disk. Truncates ranges at the end of the view.
  virtual void to_disks(const Ranges& ranges, std::vector<Ranges::Builder>& out) const = 0;

 protected:
  // [at, at + to.size()) is within the view.
  virtual Result<void> fetch(uint64_t at, std::span<std::byte> to) const = 0;
  virtual bool is_cancelled() const { return false; }
};

// A whole disk.
class DiskView : public ByteView {
 public:
  // `number`: of the disk among those of a guest, from 0. `cancel` must outlive the view; nullptr:
  // no cancellation.
  explicit DiskView(size_t number, const Cancel* cancel = nullptr)
      : number_(number), cancel_(cancel) {}

  void to_disks(const Ranges& ranges, std::vector<Ranges::Builder>& out) const override;

 private:
  bool is_cancelled() const override { return cancel_ != nullptr && cancel_->requested(); }

  const size_t number_;
  const Cancel* const cancel_;
};

// A disk that the engine reads. It must outlive the view.
class ImageView final : public DiskView {
 public:
  ImageView(const qcow2::Disk& disk, size_t number, const Cancel* cancel = nullptr)
      : DiskView(number, cancel), disk_(disk) {}

  uint64_t size() const override { return disk_.size(); }

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override;

  const qcow2::Disk& disk_;
};

// A volume that consists of pieces of other views: a partition is one piece, a logical volume may
// have many.
class MappedView final : public ByteView {
 public:
  struct Piece {
    uint64_t begin;  // bytes, in this view
    uint64_t length;
    std::shared_ptr<const ByteView> view;
    uint64_t at;  // bytes, in `view`
  };

  // The pieces must cover [0, end of the last piece) without gaps, each within its view.
  explicit MappedView(std::vector<Piece> pieces) : pieces_(std::move(pieces)) {}

  uint64_t size() const override;
  void to_disks(const Ranges& ranges, std::vector<Ranges::Builder>& out) const override;

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override;
  // Returns the piece that contains `at`; the end iterator past the last piece.
  std::vector<Piece>::const_iterator piece_at(uint64_t at) const;

  const std::vector<Piece> pieces_;
};

// Returns [begin, begin + length) of `view` as a view. The range must be within `view`.
std::shared_ptr<const ByteView> window(std::shared_ptr<const ByteView> view, uint64_t begin,
                                       uint64_t length);

}  // namespace vc::guest
