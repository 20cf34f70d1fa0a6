// Finds signatures of formats that no reader here supports: foreign filesystems, and formats in
// which a device is a part of something larger. If there is one, no supported format is trusted:
// its data may be left over from an earlier use of the device.
#pragma once

#include <vector>

#include "base/result.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

struct ForeignSignature {
  const char* type;        // libblkid's name for it, if there is one
  const char* left_alone;  // reason to leave the device alone; empty: the appliance may support it
};

// Returns all signatures at the start and at the end of a whole disk, partition or logical volume.
Result<std::vector<ForeignSignature>> foreign_signatures(const ByteView& device);

}  // namespace vc::guest
