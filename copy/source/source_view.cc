#include "copy/source/source_view.h"

#include <algorithm>
#include <cstring>

#include "base/rounding.h"

namespace vc::copy {

using qcow2::Extent;

namespace {

// Bytes per map() call: the extents are held in memory.
constexpr uint64_t kWindow = 256 << 20;

}  // namespace

// Reads whole blocks, since a server may reject other requests.
Result<void> SourceView::fetch(uint64_t at, std::span<std::byte> to) const {
  const uint64_t unit = source_.alignment();
  const uint64_t begin = round_down(at, unit);
  const uint64_t end = std::min(round_up(at + to.size(), unit), source_.size());
  if (begin == at && end == at + to.size()) return source_.read(GuestOffset(at), to);
  std::vector<std::byte> whole(end - begin);
  RETURN_IF_ERROR(source_.read(GuestOffset(begin), whole));
  std::memcpy(to.data(), whole.data() + (at - begin), to.size());
  return {};
}

Result<uint64_t> data_within(Source& source, const guest::Ranges& ranges, const Cancel& cancel) {
  uint64_t data = 0;
  std::vector<Extent> extents;
  uint64_t mapped = 0;  // end of the mapped part
  guest::Ranges::Builder in_window;
  const auto& all = ranges.all();
  for (auto range = all.begin(); range != all.end();) {
    if (cancel.requested()) return fail(Error::cancelled());
    // Maps one window, from the first range that is not counted yet.
    const uint64_t begin = std::max(range->begin, mapped);
    const uint64_t length = std::min(kWindow, source.size() - begin);
    extents.clear();
    RETURN_IF_ERROR(source.map(GuestOffset(begin), length, extents));
    for (const Extent& extent : extents) {
      if (!extent.reads_as_zero()) in_window.add(extent.guest.value(), extent.end().value());
      mapped = extent.end().value();
    }
    const guest::Ranges found = in_window.take();
    guest::Ranges::Builder here;
    for (auto it = range; it != all.end() && it->begin < mapped; ++it)
      here.add(std::max(it->begin, begin), std::min(it->end, mapped));
    data += here.take().within(found).total();
    while (range != all.end() && range->end <= mapped) ++range;
  }
  return data;
}

}  // namespace vc::copy
