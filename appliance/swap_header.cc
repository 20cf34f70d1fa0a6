#include "appliance/swap_header.h"

#include <array>
#include <optional>
#include <string_view>

namespace vc::appliance {

namespace {

constexpr std::array<size_t, 5> kPageSizes{4096, 8192, 16384, 32768, 65536};
constexpr std::string_view kSwap = "SWAPSPACE2";
// Signatures that replace the usual one while a session is saved (Linux's kernel/power/swap.c,
// uswsusp and TuxOnIce).
constexpr std::array<std::string_view, 4> kSessions{"S1SUSPEND", "S2SUSPEND", "ULSUSPEND",
                                                    "LINHIB0001"};

// Returns the offset of the signature, which is at the end of the page.
std::optional<size_t> find_signature(std::string_view start) {
  for (const size_t page : kPageSizes) {
    if (start.size() < page) break;
    const size_t at = page - kSwap.size();
    const std::string_view signature = start.substr(at, kSwap.size());
    if (signature == kSwap) return at;
    for (const std::string_view session : kSessions)
      if (signature.starts_with(session)) return at;
  }
  return std::nullopt;
}

}  // namespace

bool SwapHeader::is_in(const std::string& start) {
  return find_signature(start).has_value();
}

std::string SwapHeader::without_session(std::string start) {
  if (const auto at = find_signature(start)) start.replace(*at, kSwap.size(), kSwap);
  return start;
}

}  // namespace vc::appliance
