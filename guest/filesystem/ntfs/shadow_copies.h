// Finds Windows's shadow copies (volume snapshots), which need blocks that the volume has freed.
// Layout: libvshadow's documentation of the Volume Shadow Snapshot format.
#pragma once

#include "base/result.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

enum class ShadowCopies {
  kNeverHad,   // the volume has no record of them
  kNone,       // no copies of this volume; it may store those of other volumes, in files
  kHere,       // copies of this volume, stored on it
  kElsewhere,  // copies of this volume, stored on another one
};

// Returns an error if the records of shadow copies are damaged.
Result<ShadowCopies> find_shadow_copies(const ByteView& view);

}  // namespace vc::guest
