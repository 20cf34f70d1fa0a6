// Gives the readers of metadata access to a block device in the appliance.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "appliance/appliance.h"
#include "guest/reading/byte_view.h"

namespace vc::appliance {

class DeviceView final : public guest::ByteView {
 public:
  // The appliance must outlive the view. `size`: bytes.
  DeviceView(const Appliance& appliance, std::string device, uint64_t size)
      : it_(appliance), device_(std::move(device)), size_(size) {}

  uint64_t size() const override { return size_; }
  // Adds nothing: the place of the device on the guest's disks is unknown.
  void to_disks(const guest::Ranges& /*ranges*/,
                std::vector<guest::Ranges::Builder>& /*out*/) const override {}

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override;

  const Appliance& it_;
  const std::string device_;
  const uint64_t size_;
};

}  // namespace vc::appliance
