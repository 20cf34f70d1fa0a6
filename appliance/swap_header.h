// The first page of Linux's swap space (mkswap(8)).
#pragma once

#include <cstddef>
#include <string>

namespace vc::appliance {

struct SwapHeader {
  // Bytes to keep: the largest page size that Linux supports.
  static constexpr size_t kKept = 64 << 10;

  // Returns true if `start` is the start of swap space, with or without a saved session. `start`:
  // the first kKept bytes, or all bytes if there are fewer.
  static bool is_in(const std::string& start);
  // Returns the same bytes without the saved session.
  static std::string without_session(std::string start);
};

}  // namespace vc::appliance
