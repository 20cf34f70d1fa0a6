// Measures the size of a disk, and checks its image.
#pragma once

#include <cstdint>
#include <string>

#include "base/cancel.h"
#include "base/result.h"
#include "qcow2/check/checker.h"
#include "qcow2/read/chain.h"
#include "storage/file_size.h"

namespace vc::optimize {

// Size of a disk. Clusters have the image's own cluster size; a raw disk has none.
struct DiskFigures {
  FileSize file;
  uint64_t clusters = 0;
  uint64_t allocated = 0;
  uint64_t compressed = 0;
  uint64_t fragmented = 0;  // clusters that do not follow the previous one, as QEMU counts
  uint64_t leaks = 0;
};

// Keeps the text of the first corruption that a check finds.
class FirstFinding final : public qcow2::CheckObserver {
 public:
  // `cancel` must outlive the object.
  FirstFinding(const Cancel& cancel, uint64_t cluster_size)
      : cancel_(cancel), cluster_size_(cluster_size) {}

  void found(const qcow2::Finding& finding) override {
    if (finding.severity == qcow2::Finding::Severity::kCorruption && first_.empty())
      first_ = qcow2::describe(finding, cluster_size_);
  }
  bool cancelled() override { return cancel_.requested(); }
  // Empty: no corruption found.
  const std::string& first() const { return first_; }

 private:
  const Cancel& cancel_;
  const uint64_t cluster_size_;
  std::string first_;
};

enum class Devices { kRefused, kAccepted };

// Sets length and blocks; a block device has no blocks. Returns an error if `path` is neither a
// regular file nor, if accepted, a block device.
Result<void> measure(const std::string& path, DiskFigures& figures,
                     Devices devices = Devices::kRefused);

// Sets all figures. Returns an error if the image is corrupt; leaks are only counted.
Result<void> check_image(const std::string& path, qcow2::Format format, DiskFigures& figures,
                         const Cancel& cancel, Devices devices = Devices::kRefused);

}  // namespace vc::optimize
