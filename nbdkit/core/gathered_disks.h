// The gatherers of all disks that clients are connected to, by the name of their export.
//
// Two names may be one disk: many plugins pay no attention to the name that a client asks for.  So
// trims are joined only with those of the same name, but a write, under any name, is one to all of
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "nbdkit/core/discard_gatherer.h"

namespace filters {

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
    unsigned users_ = 1;  // guarded by GatheredDisks::mutex_
  };

  // A connection to `name` begins.  The first one decides on the options.
  std::shared_ptr<Disk> acquire(const std::string& name, const DiscardGatherer::Options& options);
  // It ends.  With the last one, all that is held goes.
  void release(const std::shared_ptr<Disk>& disk);

  // Calls `work` as a write to the range, on whichever disk.
  template <typename Work>
  auto write(uint64_t offset, uint64_t length, Work work) {
    const auto disks = all();
    return write_to(*disks, 0, offset, length, work);
  }

  // Of all disks that there have been; what is held counts as of their end.
  DiscardGatherer::Statistics statistics() const;

 private:
  using Disks = std::vector<std::shared_ptr<Disk>>;

  std::shared_ptr<const Disks> all() const {
    const std::lock_guard lock(mutex_);
    return disks_;
  }

  template <typename Work>
  static auto write_to(const Disks& disks, size_t index, uint64_t offset, uint64_t length,
                       Work& work) {
    if (index == disks.size()) return work();
    const auto writing = disks[index]->gatherer.begin_write(offset, length);
    return write_to(disks, index + 1, offset, length, work);
  }

  mutable std::mutex mutex_;
  // Guarded by mutex_; never changed, but replaced.
  std::shared_ptr<const Disks> disks_ = std::make_shared<Disks>();
  DiscardGatherer::Statistics past_;  // guarded by mutex_: of disks that are gone
};

}  // namespace filters
