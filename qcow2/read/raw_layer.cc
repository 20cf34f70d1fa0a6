#include "qcow2/read/raw_layer.h"

#include <fmt/format.h>

#include <algorithm>

namespace vc::qcow2 {

Result<std::shared_ptr<Layer>> RawLayer::open(std::shared_ptr<Storage> storage) {
  ASSIGN_OR_RETURN(const uint64_t size, storage->size());
  return std::shared_ptr<Layer>(
      new RawLayer(std::move(storage), size, Format::kRaw, HostOffset(0)));
}

Result<std::shared_ptr<Layer>> RawLayer::open_luks(std::shared_ptr<Storage> disk,
                                                   HostOffset payload) {
  ASSIGN_OR_RETURN(const uint64_t size, disk->size());
  return std::shared_ptr<Layer>(new RawLayer(std::move(disk), size, Format::kLuks, payload));
}

Result<Extent> RawLayer::map(GuestOffset at, uint64_t limit) const {
  ASSIGN_OR_RETURN(const Storage::Run run, storage_->run_at(HostOffset(at.value()), limit));
  Extent extent;
  extent.guest = at;
  extent.length = run.length;
  extent.kind = run.data ? ExtentKind::kData : ExtentKind::kZero;
  extent.host = begin_ + at.value();
  return extent;
}

Result<void> RawLayer::read(const Extent& /*extent*/, GuestOffset at,
                            std::span<std::byte> to) const {
  ASSIGN_OR_RETURN(const size_t got, storage_->read(HostOffset(at.value()), to));
  if (got < to.size())
    return fail(
        Error::corrupt(fmt::format("{}: the file became shorter while it was read: it ends "
                                   "at {:#x}, and had {:#x} bytes",
                                   name(), at.value() + got, size_)));
  return {};
}

Result<size_t> RawLayer::read_stream(const Extent& extent, std::span<std::byte> /*to*/) const {
  return fail(Error::invalid(fmt::format("{}: no compressed cluster at {:#x} of a raw file", name(),
                                         extent.guest.value())));
}

}  // namespace vc::qcow2
