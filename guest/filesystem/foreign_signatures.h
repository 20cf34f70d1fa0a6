// Signatures of what nothing here reads: filesystems of others, and everything that has a device as
// a part of something larger.  Beside one of them no format of ours is believed: it may be what an
// earlier owner of the device left.
#pragma once

#include <vector>

#include "base/result.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

struct ForeignSignature {
  const char* type;        // as libblkid calls it, where it knows it
  const char* left_alone;  // why nothing can be done with it; empty: the appliance may know
};

// All that the start and the end of a whole disk, a partition or a logical volume have.
Result<std::vector<ForeignSignature>> foreign_signatures(const ByteView& device);

}  // namespace vc::guest
