// The first page of Linux's swap space (mkswap(8)).
#pragma once

#include <cstddef>
#include <string>

namespace vc::appliance {

struct SwapHeader {
  // The largest page that any processor of Linux has: so much is kept, bytes.
  static constexpr size_t kKept = 64 << 10;

  // Whether `start`, the first kKept bytes or all that there are, begin as swap space does, in use
  // for swapping or with a saved session.
  static bool is_in(const std::string& start);
  // The same bytes, without a saved session.
  static std::string without_session(std::string start);
};

}  // namespace vc::appliance
