#include "copy/source/overlay_map.h"

#include <algorithm>

#include "base/rounding.h"

namespace vc::copy {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

constexpr size_t kOverlayExtentsAtOnce = 1024;

}  // namespace

Result<void> OverlayMap::copy_units(GuestOffset at, GuestOffset end,
                                    std::vector<Extent>& out) const {
  while (at < end) {
    const size_t before = out.size();
    RETURN_IF_ERROR(disk_.map(at, end - at, out, kOverlayExtentsAtOnce));
    for (size_t i = before; i < out.size(); ++i)
      if (out[i].kind == ExtentKind::kUnallocated) out[i].kind = ExtentKind::kZero;
    at = out.back().end();
  }
  return {};
}

Result<void> OverlayMap::map(GuestOffset at, uint64_t length, std::vector<Extent>& out) const {
  const GuestOffset limit = at + length;
  const GuestOffset disk_end(disk_.size());
  const auto unit_begin = [&](GuestOffset offset) {
    return offset == disk_end ? offset : GuestOffset(round_down(offset.value(), unit_));
  };
  const auto unit_end = [&](GuestOffset offset) {
    return std::min(disk_end, GuestOffset(round_up(offset.value(), unit_)));
  };
  std::vector<Extent> above;
  RETURN_IF_ERROR(above_.map(at, length, above, kOverlayExtentsAtOnce));
  // Past the end of an image that is shorter than its overlay, lower images are not visible: the
  // range reads as zeros.
  const auto left_to_base = [&](const Extent& extent) {
    return extent.kind == ExtentKind::kUnallocated && extent.depth + 1 == above_.layers().size();
  };
  GuestOffset done = at;
  for (const Extent& extent : above) {
    if (extent.end() <= done) continue;
    if (!left_to_base(extent)) {
      const GuestOffset end = unit_end(extent.end());
      RETURN_IF_ERROR(copy_units(done, end, out));
      done = end;
    } else if (const GuestOffset end = unit_begin(extent.end()); end > done) {
      Extent left;
      left.guest = done;
      left.length = end - done;
      out.push_back(left);
      done = end;
    }
  }
  // If the extents end inside the first unit, an image above the backing file defines part of it.
  if (done == at) return copy_units(at, std::min(limit, unit_end(at + 1)), out);
  return {};
}

}  // namespace vc::copy
