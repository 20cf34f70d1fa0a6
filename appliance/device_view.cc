#include "appliance/device_view.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace vc::appliance {

namespace {

// Bytes per read: libguestfs's messages have at most 4 MiB.
constexpr size_t kPiece = 2 << 20;

}  // namespace

Result<void> DeviceView::fetch(uint64_t at, std::span<std::byte> to) const {
  while (!to.empty()) {
    size_t length = 0;
    const std::unique_ptr<char, void (*)(void*)> bytes(
        guestfs_pread_device(it_.handle(), device_.c_str(),
                             static_cast<int>(std::min(to.size(), kPiece)),
                             static_cast<int64_t>(at), &length),
        std::free);
    if (!bytes) return fail(it_.last_error(device_));
    if (length == 0 || length > to.size())
      return fail(
          Error::protocol(EIO, device_ + ": the appliance returned fewer bytes than requested"));
    std::memcpy(to.data(), bytes.get(), length);
    at += length;
    to = to.subspan(length);
  }
  return {};
}

}  // namespace vc::appliance
