#include "guest/filesystem/swap.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace guest {

using qcow2::Result;

namespace {

using namespace std::string_view_literals;

// The signature ends the first page, whose size is the machine's.
constexpr std::array<uint64_t, 5> kPageSizes{4096, 8192, 16384, 32768, 65536};
constexpr uint64_t kSignatureLength = 10;
constexpr std::array kPlain{"SWAPSPACE2"sv, "SWAP-SPACE"sv};
// Of the kernel's, TuxOnIce's and uswsusp's saved sessions.
constexpr std::array kSaved{"S1SUSPEND\0"sv, "S2SUSPEND\0"sv, "ULSUSPEND\0"sv, "LINHIB0001"sv};
constexpr std::string_view kTuxOnIce{"\xed\xc3\x02\xe9\x98\x56\x5e\x0c", 8};

template <size_t N>
bool is_any(const Fields& head, const std::array<std::string_view, N>& signatures) {
  return std::any_of(kPageSizes.begin(), kPageSizes.end(), [&](uint64_t page) {
    return std::any_of(signatures.begin(), signatures.end(), [&](std::string_view signature) {
      return head.has(page - kSignatureLength, signature);
    });
  });
}

bool probe(const Fields& head) {
  return head.size() >= kSwapKept && (is_any(head, kPlain) || is_any(head, kSaved));
}

Result<Reading> read(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block block, view.block(0, kSwapKept));
  const Fields head = block.fields();
  if (has_saved_session(head)) return suspended("a session is saved in it");
  Reading reading;
  reading.free = one_range(kSwapKept, view.size());
  reading.uuid = uuid_text(head.part(1024 + 12, 16));
  reading.label = padded_text(head.part(1024 + 28, 16));
  return reading;
}

}  // namespace

const Format kSwap{"swap", probe, read};

bool has_saved_session(const Fields& head) {
  return is_any(head, kSaved) || head.has(0, kTuxOnIce);
}

}  // namespace guest
