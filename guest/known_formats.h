// The formats that a volume may have.
#pragma once

#include <string>
#include <vector>

#include "guest/reading/byte_view.h"
#include "guest/reading/reading.h"

namespace guest {

struct Recognized {
  std::string type;                // as libblkid calls it
  const Format* format = nullptr;  // its reader; nullptr: there is none, or LVM has it
  std::string left_alone;          // why nothing can be done with it; empty: the appliance may know
};

// All that the start of a volume looks like; a volume with more than one is ambiguous.
qcow2::Result<std::vector<Recognized>> recognize(const ByteView& view);

// The type of a physical volume of LVM2.
inline constexpr const char* kLvmMember = "LVM2_member";

}  // namespace guest
