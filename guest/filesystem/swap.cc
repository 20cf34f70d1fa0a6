#include "guest/filesystem/swap.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

namespace vc::guest {

namespace {

using namespace std::string_view_literals;

// The signature is at the end of the first page. The page size depends on the machine.
constexpr std::array<uint64_t, 5> kPageSizes{4096, 8192, 16384, 32768, 65536};
constexpr uint64_t kSignatureLength = 10;
constexpr std::string_view kVersion1 = "SWAPSPACE2"sv;
constexpr std::array kPlain{kVersion1, "SWAP-SPACE"sv};
// Signatures of sessions saved by the kernel, by TuxOnIce and by uswsusp.
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

struct Header {
  Fields bytes;
  bool is_big_endian;

  uint32_t number(size_t at) const { return is_big_endian ? bytes.be32(at) : bytes.le32(at); }
};

// Returns the page sizes that have the signature at their end.
std::vector<uint64_t> pages_of(const Fields& head) {
  std::vector<uint64_t> pages;
  for (const uint64_t page : kPageSizes)
    if (head.has(page - kSignatureLength, kVersion1)) pages.push_back(page);
  return pages;
}

Result<Reading> read(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block block, view.block(0, std::min(kSwapKept, view.size())));
  const Fields head = block.fields();
  if (has_saved_session(head)) return suspended(kHasSession);
  ASSIGN_OR_RETURN(const uint64_t end, swap_end(head, view.size()));
  Reading reading;
  reading.free = end > kSwapKept ? one_range(kSwapKept, end) : Ranges();
  reading.uuid = uuid_text(head.part(1024 + 12, 16));
  reading.label = padded_text(head.part(1024 + 28, 16));
  return reading;
}

}  // namespace

const Format kSwap{"swap", probe, read};

bool has_saved_session(const Fields& head) {
  return is_any(head, kSaved) || head.has(0, kTuxOnIce);
}

// Checks the whole header: a signature of ten bytes may be left over from an earlier use.
Result<uint64_t> swap_end(const Fields& head, uint64_t size) {
  constexpr size_t kHeader = 1024;
  constexpr size_t kPadding = 44;
  constexpr size_t kPaddingLength = 117 * 4;
  constexpr uint32_t kMostBadPages = 637;
  const auto pages = pages_of(head);
  if (pages.size() != 1) return doubt("its swap signature is not one of version 1");
  const Header header{head.part(kHeader), head.be32(kHeader) == 1};
  if (header.number(0) != 1 || header.number(8) > kMostBadPages ||
      !header.bytes.part(kPadding, kPaddingLength).all(0))
    return doubt("its swap header is damaged, or left over from earlier use");
  const uint64_t end = (header.number(4) + uint64_t{1}) * pages.front();
  if (end > size) return doubt("it is larger than its partition");
  return end;
}

}  // namespace vc::guest
