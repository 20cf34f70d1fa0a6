// The gatherers of all disks with connected clients, by export name.
//
// Two names may refer to one disk: many plugins ignore the export name. So trims are joined only
// with trims of the same name, but a write under any name counts as a write to all disks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "nbdkit/core/discard_gatherer.h"

namespace vc::nbdkit {

class GatheredDisks {
 public:
  class Disk {
   public:
    Disk(std::string name, const DiscardGatherer::Options& options)
        : gatherer(options), name_(std::move(name)) {}

    DiscardGatherer gatherer;

   private:
    friend class GatheredDisks;
    const std::string name_;
  };

  // Returns the disk `name` for a new connection. The options of the first connection apply.
  std::shared_ptr<Disk> acquire(const std::string& name, const DiscardGatherer::Options& options);
  // Ends a connection. The last one drops all held ranges.
  void release(const std::shared_ptr<Disk>& disk);

  // Calls `work` as a write to the range on every disk.
  template <typename Work>
  auto write(uint64_t offset, uint64_t length, Work work) {
    const auto disks = all();
    return write_to(*disks, 0, offset, length, work);
  }

  // Returns totals of all disks since the start. Held ranges of closed disks count as of their end.
  DiscardGatherer::Statistics statistics() const;

 private:
  using Disks = std::vector<std::shared_ptr<Disk>>;

  std::shared_ptr<const Disks> all() const {
    const MutexLock lock(mutex_);
    return disks_;
  }

  template <typename Work>
  static auto write_to(const Disks& disks, size_t index, uint64_t offset, uint64_t length,
                       Work& work) {
    if (index == disks.size()) return work();
    const auto writing = disks[index]->gatherer.begin_write(offset, length);
    return write_to(disks, index + 1, offset, length, work);
  }

  mutable Mutex mutex_;
  // Immutable: replaced, never changed.
  std::shared_ptr<const Disks> disks_ GUARDED_BY(mutex_) = std::make_shared<Disks>();
  std::map<const Disk*, unsigned> users_ GUARDED_BY(mutex_);  // connections to each disk
  DiscardGatherer::Statistics past_ GUARDED_BY(mutex_);       // totals of closed disks
};

}  // namespace vc::nbdkit
