#include "qcow2/read/lenient_reader.h"

#include <algorithm>
#include <span>

#include "base/byte_order.h"
#include "base/rounding.h"

namespace vc::qcow2 {

namespace {

constexpr uint64_t kReadWindow = 64 << 10;  // bytes
// An error is narrowed down in two steps, so that a unit is read at most three times.
constexpr uint64_t kPage = 4 << 10;

}  // namespace

void LenientReader::load(uint64_t at) {
  begin_ = round_down(at, kReadWindow);
  bytes_.assign(kReadWindow, std::byte{0});
  readable_.assign(kReadWindow / kUnit, 0);
  const auto try_range = [&](uint64_t from, uint64_t length) {
    if (begin_ + from > static_cast<uint64_t>(INT64_MAX) - length) return true;
    const auto got =
        storage_.read(HostOffset(begin_ + from), std::span(bytes_).subspan(from, length));
    if (!got) return false;
    for (uint64_t done = 0; done < *got; done += kUnit)
      readable_[(from + done) / kUnit] = static_cast<uint16_t>(std::min(kUnit, *got - done));
    return true;
  };
  if (try_range(0, kReadWindow)) return;
  for (uint64_t page = 0; page < kReadWindow; page += kPage) {
    if (try_range(page, kPage)) continue;
    for (uint64_t unit = page; unit < page + kPage; unit += kUnit) (void)try_range(unit, kUnit);
  }
}

const std::byte* LenientReader::get(HostOffset at, uint64_t length) {
  if (begin_ == UINT64_MAX || round_down(at.value(), kReadWindow) != begin_) load(at.value());
  const uint64_t in = at.value() - begin_;
  if (in + length > kReadWindow || in % kUnit + length > readable_[in / kUnit]) return nullptr;
  return &bytes_[in];
}

std::optional<uint64_t> LenientReader::word(HostOffset at) {
  const std::byte* const bytes = get(at, 8);
  if (bytes == nullptr) return std::nullopt;
  return load_be64(bytes);
}

}  // namespace vc::qcow2
