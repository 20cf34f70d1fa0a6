#include "tests/appliance/booted.h"

#include <utility>

namespace vc::test {

namespace {

template <typename T>
T value(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace

Booted::Booted(const std::vector<std::string>& disks) {
  std::vector<appliance::Appliance::Drive> drives;
  for (const std::string& disk : disks) {
    disks_.push_back(value(appliance::inspect_disk({disk, {}, {}}, true)));
    servers_.push_back(value(appliance::DiskServer::start(
        disks_.back(), appliance::DiskServer::Access::kWrite, never_)));
    drives.push_back({servers_.back()->socket(), false});
  }
  appliance_ = value(appliance::Appliance::launch(drives, observer_, never_));
}

void Booted::check(int returned) const {
  value(appliance_->check(returned, "libguestfs"));
}

std::string Booted::text(char* returned) const {
  return value(appliance_->text(returned, "libguestfs"));
}

std::vector<std::string> Booted::list(char** returned) const {
  return value(appliance_->list(returned, "libguestfs"));
}

void Booted::finish() {
  value(appliance_->shut_down());
  appliance_.reset();
  for (auto& server : servers_) {
    value(server->flush());
    value(server->close());
  }
  servers_.clear();
}

}  // namespace vc::test
