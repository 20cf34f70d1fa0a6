// The formats that a volume may have.
#pragma once

#include <string>
#include <vector>

#include "guest/reading/byte_view.h"
#include "guest/reading/reading.h"

namespace vc::guest {

struct Recognized {
  std::string type;                // as libblkid calls it
  const Format* format = nullptr;  // its reader; nullptr: there is none, or LVM has it
  std::string left_alone;          // why nothing can be done with it; empty: the appliance may know
  bool has_session = false;        // a session is saved in it; nothing else is told then
};

// All that a whole disk, a partition or a logical volume looks like; one with more than one is
// ambiguous.  Swap space alone if a session is saved in it.
Result<std::vector<Recognized>> recognize(const ByteView& view);

// The type of a physical volume of LVM2.
inline constexpr const char* kLvmMember = "LVM2_member";

}  // namespace vc::guest
