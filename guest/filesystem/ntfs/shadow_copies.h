// Shadow copies of Windows (volume snapshots), which need the blocks that the volume has freed.
// The layout: libvshadow's documentation of the Volume Shadow Snapshot format.
#pragma once

#include "base/result.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

enum class ShadowCopies {
  kNeverHad,   // nothing is said of them
  kNone,       // of this volume there are none; it may keep those of others, in files
  kHere,       // of this volume, kept on it
  kElsewhere,  // of this volume, kept on another one
};

// An error when what the volume says of shadow copies is damaged.
Result<ShadowCopies> find_shadow_copies(const ByteView& view);

}  // namespace vc::guest
