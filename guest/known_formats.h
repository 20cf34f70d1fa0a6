// Recognizes the formats of a volume.
#pragma once

#include <string>
#include <vector>

#include "guest/reading/byte_view.h"
#include "guest/reading/reading.h"

namespace vc::guest {

struct Recognized {
  std::string type;                // libblkid's name
  const Format* format = nullptr;  // its reader; nullptr: none, or LVM
  std::string left_alone;          // reason to leave it alone; empty: the appliance may support it
  bool has_session = false;        // holds a saved session; then it is the only result
};

// Returns all formats that a whole disk, partition or logical volume may have. Several formats make
// it ambiguous. Returns only swap space if a session is saved in it.
Result<std::vector<Recognized>> recognize(const ByteView& view);

// The type of a physical volume of LVM2.
inline constexpr const char* kLvmMember = "LVM2_member";

}  // namespace vc::guest
