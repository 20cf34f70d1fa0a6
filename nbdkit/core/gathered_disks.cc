#include "nbdkit/core/gathered_disks.h"

#include <algorithm>

namespace vc::nbdkit {

std::shared_ptr<GatheredDisks::Disk> GatheredDisks::acquire(
    const std::string& name, const DiscardGatherer::Options& options) {
  const MutexLock lock(mutex_);
  for (const auto& it : *disks_)
    if (it->name_ == name) {
      ++users_[it.get()];
      return it;
    }
  auto disks = std::make_shared<Disks>(*disks_);
  disks->push_back(std::make_shared<Disk>(name, options));
  disks_ = disks;
  ++users_[disks->back().get()];
  return disks->back();
}

void GatheredDisks::release(const std::shared_ptr<Disk>& disk) {
  const MutexLock lock(mutex_);
  const auto users = users_.find(disk.get());
  if (--users->second > 0) return;
  users_.erase(users);
  auto disks = std::make_shared<Disks>(*disks_);
  disks->erase(std::find(disks->begin(), disks->end(), disk));
  disks_ = disks;
  past_ += disk->gatherer.statistics();
}

DiscardGatherer::Statistics GatheredDisks::statistics() const {
  const MutexLock lock(mutex_);
  DiscardGatherer::Statistics sum = past_;
  for (const auto& it : *disks_) sum += it->gatherer.statistics();
  return sum;
}

}  // namespace vc::nbdkit
