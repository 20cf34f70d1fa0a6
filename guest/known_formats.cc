#include "guest/known_formats.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "guest/filesystem/btrfs.h"
#include "guest/filesystem/exfat.h"
#include "guest/filesystem/ext.h"
#include "guest/filesystem/fat.h"
#include "guest/filesystem/ntfs.h"
#include "guest/filesystem/swap.h"
#include "guest/filesystem/xfs.h"
#include "guest/layout/physical_volume.h"

namespace guest {

using qcow2::Result;

namespace {

using namespace std::string_view_literals;

struct Signature {
  const char* type;
  size_t at;
  std::string_view bytes;
  const char* left_alone;
};

constexpr const char* kEncrypted = "it is encrypted";
constexpr std::array kSignatures{
    Signature{"crypto_LUKS", 0, "LUKS\xba\xbe"sv, kEncrypted},
    Signature{"BitLocker", 3, "-FVE-FS-"sv, kEncrypted},
    Signature{"ReFS", 3, "ReFS\0"sv, "nothing here reads ReFS"},
    Signature{"storage_spaces_member", 0, "SPACEDB "sv, "Windows's Storage Spaces use it"},
    Signature{"storage_spaces_member", 4096, "SPACEDB "sv, "Windows's Storage Spaces use it"},
    Signature{"bcache", 4096 + 24,
              "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"sv,
              "it is a part of a bcache"},
    Signature{"linux_raid_member", 0, "\xfc\x4e\x2b\xa9"sv, "it is a part of a RAID"},
    Signature{"linux_raid_member", 4096, "\xfc\x4e\x2b\xa9"sv, "it is a part of a RAID"},
};
// Filesystems that only Linux reads.  Remnants of them say nothing beside a format of ours.
constexpr std::array kOthers{
    Signature{"f2fs", 1024, "\x10\x20\xf5\xf2"sv, ""},
    Signature{"jfs", 32 << 10, "JFS1"sv, ""},
    Signature{"reiserfs", (64 << 10) + 52, "ReIsEr"sv, ""},
};
const std::array kFormats{&kXfs, &kBtrfs, &kExt, &kNtfs, &kExfat, &kFat, &kSwap};

// Superblocks of RAIDs of versions 0.90 and 1.0 stand at the end, where whoever reads the start
// sees the filesystem inside.
Result<bool> ends_with_raid(const ByteView& view) {
  constexpr uint64_t kUnit = 64 << 10;
  constexpr uint32_t kMagic = 0xA92B4EFC;
  if (view.size() < 2 * kUnit) return false;
  const std::array<uint64_t, 2> places{view.size() / kUnit * kUnit - kUnit,
                                       (view.size() / 512 - 16) / 8 * 8 * 512};
  for (const uint64_t at : places) {
    ASSIGN_OR_RETURN(const Block block, view.block(at, 4));
    if (block.fields().le32(0) == kMagic) return true;
  }
  return false;
}

}  // namespace

Result<std::vector<Recognized>> recognize(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block block, view.block(0, std::min(view.size(), kHeadSize)));
  const Fields head = block.fields();
  std::vector<Recognized> all;
  for (const Signature& it : kSignatures)
    if (head.has(it.at, it.bytes)) all.push_back({it.type, nullptr, it.left_alone});
  if (is_physical_volume(head)) all.push_back({kLvmMember, nullptr, ""});
  for (const Format* const format : kFormats)
    if (format->probe(head)) all.push_back({format->type, format, ""});
  if (all.empty()) {
    for (const Signature& it : kOthers)
      if (head.has(it.at, it.bytes)) all.push_back({it.type, nullptr, ""});
  }
  ASSIGN_OR_RETURN(const bool is_raid, ends_with_raid(view));
  if (is_raid) all.push_back({"linux_raid_member", nullptr, "it is a part of a RAID"});
  return all;
}

}  // namespace guest
