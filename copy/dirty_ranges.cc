#include "copy/dirty_ranges.h"

#include <fmt/format.h>

#include <cerrno>

#include "copy/nbd_limits.h"

namespace copy {

using qcow2::Error;
using qcow2::GuestOffset;
using qcow2::Result;

Result<std::unique_ptr<DirtyRanges>> DirtyRanges::open(const NbdTarget& target,
                                                       const std::string& bitmap,
                                                       const NbdTuning& tuning, const Stop& stop) {
  const std::string context = dirty_bitmap_context(bitmap);
  ASSIGN_OR_RETURN(const auto endpoint, NbdEndpoint::open(target, stop));
  ASSIGN_OR_RETURN(auto line, NbdLine::open(endpoint, {context}, tuning, stop));
  const uint64_t size = line->limits().size;
  NbdStatus status(context, line->limits().minimum);
  if (!status.offered(*line))
    return qcow2::fail(Error::unsupported(
        fmt::format("{}: the export has no dirty bitmap '{}'", target.name(), bitmap)));
  return std::unique_ptr<DirtyRanges>(new DirtyRanges(std::move(line), std::move(status), size));
}

Result<std::optional<DirtyRanges::Range>> DirtyRanges::next() {
  Range range;
  while (true) {
    for (; ahead_at_ < ahead_.size(); ++ahead_at_) {
      const NbdStatus::Stretch& it = ahead_[ahead_at_];
      if (!it.known)
        return qcow2::fail(
            Error::protocol(EIO, fmt::format("{}: the server does not say what is dirty at {:#x}",
                                             line_->name(), it.at)));
      if ((it.flags & kStatusDirty) != 0) {
        if (range.length == 0) range.begin = GuestOffset(it.at);
        range.length += it.length;
      } else if (range.length > 0) {
        return range;
      }
    }
    if (asked_ == size_) break;
    ahead_.clear();
    ahead_at_ = 0;
    RETURN_IF_ERROR(status_.ask(*line_, asked_, size_ - asked_, ahead_));
    asked_ = ahead_.back().at + ahead_.back().length;
  }
  if (range.length == 0) return std::nullopt;
  return range;
}

}  // namespace copy
