#include "guest/filesystem/ntfs/shadow_copies.h"

#include <string_view>

#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

constexpr std::string_view kGuid{"\x6b\x87\x08\x38\x76\xc1\x48\x4e\xb7\xae\x04\x04\x6e\x6c\xc7\x52",
                                 16};
constexpr uint64_t kHeaderAt = 0x1E00;
constexpr uint64_t kHeaderSize = 512;
constexpr uint64_t kCatalogBlock = 16 << 10;
constexpr size_t kEntrySize = 128;
// Windows keeps up to 64 copies of a volume. Each has two entries, of different types.
constexpr unsigned kMostBlocks = 64;

enum RecordType : uint32_t { kHeader = 1, kCatalog = 2 };
constexpr uint64_t kSnapshot = 2;  // type of an entry

}  // namespace

Result<ShadowCopies> find_shadow_copies(const ByteView& view) {
  const auto damaged = [] { return doubt("its metadata of shadow copies are damaged"); };
  if (view.size() < kHeaderAt + kHeaderSize) return ShadowCopies::kNeverHad;
  ASSIGN_OR_RETURN(const Block block, view.block(kHeaderAt, kHeaderSize));
  const Fields header = block.fields();
  if (!header.has(0, kGuid)) return ShadowCopies::kNeverHad;
  if (header.le32(0x14) != kHeader) return damaged();
  // GUIDs of the volume, and of the volume that stores its copies.
  if (header.text(0x40, 16) != header.text(0x50, 16)) return ShadowCopies::kElsewhere;
  uint64_t at = header.le64(0x30);
  for (unsigned blocks = 0; at != 0; ++blocks) {
    if (blocks == kMostBlocks) return damaged();
    ASSIGN_OR_RETURN(const Block catalog, view.block(at, kCatalogBlock));
    const Fields it = catalog.fields();
    if (!it.has(0, kGuid) || it.le32(0x14) != kCatalog) return damaged();
    for (size_t entry = kEntrySize; entry < kCatalogBlock; entry += kEntrySize)
      if (it.le64(entry) == kSnapshot) return ShadowCopies::kHere;
    at = it.le64(0x28);
  }
  return ShadowCopies::kNone;
}

}  // namespace vc::guest
