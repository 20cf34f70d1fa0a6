#include "guest/known_formats.h"

#include <algorithm>
#include <array>

#include "guest/filesystem/btrfs.h"
#include "guest/filesystem/exfat.h"
#include "guest/filesystem/ext.h"
#include "guest/filesystem/fat.h"
#include "guest/filesystem/foreign_signatures.h"
#include "guest/filesystem/ntfs/ntfs.h"
#include "guest/filesystem/swap.h"
#include "guest/filesystem/xfs.h"
#include "guest/layout/physical_volume.h"

namespace vc::guest {

namespace {

const std::array kFormats{&kXfs, &kBtrfs, &kExt, &kNtfs, &kExfat, &kFat, &kSwap};

}  // namespace

Result<std::vector<Recognized>> recognize(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block block, view.block(0, std::min(view.size(), kHeadSize)));
  const Fields head = block.fields();
  std::vector<Recognized> all;
  // A saved session takes precedence over every other format: the guest's disks must not change.
  if (has_saved_session(head)) {
    all.push_back({kSwap.type, &kSwap, "", true});
    return all;
  }
  ASSIGN_OR_RETURN(const auto foreign, foreign_signatures(view));
  for (const ForeignSignature& it : foreign) all.push_back({it.type, nullptr, it.left_alone});
  if (is_physical_volume(head)) all.push_back({kLvmMember, nullptr, ""});
  for (const Format* const format : kFormats)
    if (format->probe(head)) all.push_back({format->type, format, ""});
  return all;
}

}  // namespace vc::guest
