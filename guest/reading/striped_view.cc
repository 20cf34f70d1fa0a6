#include "guest/reading/striped_view.h"

#include <algorithm>

namespace vc::guest {

uint64_t StripedView::in_column(size_t column, uint64_t end) const {
  const uint64_t row = stripe_ * columns_.size();
  const uint64_t before = column * stripe_;
  const uint64_t rest = end % row;
  return end / row * stripe_ + std::min(rest - std::min(rest, before), stripe_);
}

void StripedView::to_disks(const Ranges& ranges, std::vector<Ranges::Builder>& out) const {
  for (const Range& range : ranges.all()) {
    const uint64_t end = std::min(range.end, size_);
    if (range.begin >= end) continue;
    for (size_t i = 0; i < columns_.size(); ++i)
      columns_[i].view->to_disks(
          one_range(columns_[i].at + in_column(i, range.begin), columns_[i].at + in_column(i, end)),
          out);
  }
}

Result<void> StripedView::fetch(uint64_t at, std::span<std::byte> to) const {
  while (!to.empty()) {
    const uint64_t stripe = at / stripe_;
    const uint64_t offset = at % stripe_;
    const size_t length = std::min<uint64_t>(to.size(), stripe_ - offset);
    const Column& column = columns_[stripe % columns_.size()];
    RETURN_IF_ERROR(column.view->read(column.at + stripe / columns_.size() * stripe_ + offset,
                                      to.first(length)));
    at += length;
    to = to.subspan(length);
  }
  return {};
}

}  // namespace vc::guest
