#include "nbdkit/core/gathered_disks.h"

#include <algorithm>

namespace vc::nbdkit {

std::shared_ptr<GatheredDisks::Disk> GatheredDisks::acquire(
    const std::string& name, const DiscardGatherer::Options& options) {
  const std::lock_guard lock(mutex_);
  for (const auto& it : *disks_)
    if (it->name_ == name) {
      ++it->users_;
      return it;
    }
  auto disks = std::make_shared<Disks>(*disks_);
  disks->push_back(std::make_shared<Disk>(name, options));
  disks_ = disks;
  return disks->back();
}

void GatheredDisks::release(const std::shared_ptr<Disk>& disk) {
  const std::lock_guard lock(mutex_);
  if (disk->users_ == 1) {
    auto disks = std::make_shared<Disks>(*disks_);
    disks->erase(std::find(disks->begin(), disks->end(), disk));
    disks_ = disks;
    past_ += disk->gatherer.statistics();
  }
  --disk->users_;
}

DiscardGatherer::Statistics GatheredDisks::statistics() const {
  const std::lock_guard lock(mutex_);
  DiscardGatherer::Statistics sum = past_;
  for (const auto& it : *disks_) sum += it->gatherer.statistics();
  return sum;
}

}  // namespace vc::nbdkit
