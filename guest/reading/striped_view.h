// A volume that is striped over other views.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

class StripedView final : public ByteView {
 public:
  // The part of the volume on one view: [at, at + size() / number of columns) of `view`.
  struct Column {
    std::shared_ptr<const ByteView> view;
    uint64_t at;  // bytes
  };

  // Stripe number `i`, of `stripe` bytes, is in column `i` modulo the number of columns. `size`, in
  // bytes, must be a multiple of a stripe in each column. Each column must be within its view.
  StripedView(std::vector<Column> columns, uint64_t stripe, uint64_t size)
      : columns_(std::move(columns)), stripe_(stripe), size_(size) {}

  uint64_t size() const override { return size_; }
  // Adds at most one range for each column and range.
  void to_disks(const Ranges& ranges, std::vector<Ranges::Builder>& out) const override;

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override;
  // Returns how many bytes of [0, end) are in a column.
  uint64_t in_column(size_t column, uint64_t end) const;

  const std::vector<Column> columns_;
  const uint64_t stripe_;  // bytes
  const uint64_t size_;    // bytes
};

}  // namespace vc::guest
