// What has changed on a disk since a bitmap was begun.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "copy/nbd_line.h"
#include "copy/nbd_status.h"
#include "copy/nbd_target.h"
#include "copy/nbd_tuning.h"
#include "copy/stop.h"
#include "qcow2/offset.h"
#include "qcow2/result.h"

namespace copy {

// Asks a server for a dirty bitmap of QEMU's ("qemu:dirty-bitmap:NAME"), a part at a time: memory
// does not depend on how much there is.
class DirtyRanges {
 public:
  // `stop` outlives the ranges.  An error if the export has no such bitmap.
  static qcow2::Result<std::unique_ptr<DirtyRanges>> open(const NbdTarget& target,
                                                          const std::string& bitmap,
                                                          const NbdTuning& tuning,
                                                          const Stop& stop);

  struct Range {
    qcow2::GuestOffset begin;
    uint64_t length = 0;  // bytes
  };
  // The next dirty range, in order; no two of them touch.  Nothing: there are no more.
  qcow2::Result<std::optional<Range>> next();

  // Of the disk, bytes.
  uint64_t size() const { return size_; }

 private:
  DirtyRanges(std::unique_ptr<NbdLine> line, NbdStatus status, uint64_t size)
      : line_(std::move(line)), status_(std::move(status)), size_(size) {}

  const std::unique_ptr<NbdLine> line_;
  NbdStatus status_;
  const uint64_t size_;
  std::vector<NbdStatus::Stretch> ahead_;
  size_t ahead_at_ = 0;  // the first of them that was not looked at
  uint64_t asked_ = 0;   // all before it was asked about
};

}  // namespace copy
