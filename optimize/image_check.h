// What a disk takes, and whether its image is sound.
#pragma once

#include <cstdint>
#include <string>

#include "base/cancel.h"
#include "base/result.h"
#include "qcow2/check/checker.h"
#include "qcow2/read/chain.h"

namespace vc::optimize {

// What a disk takes.  Clusters are of its own size, none if it is raw.
struct DiskFigures {
  uint64_t length = 0;   // bytes, of the file
  uint64_t on_disk = 0;  // bytes of blocks
  uint64_t clusters = 0;
  uint64_t allocated = 0;
  uint64_t compressed = 0;
  uint64_t fragmented = 0;  // that do not follow the one before them, as QEMU counts
  uint64_t leaks = 0;
};

// Keeps the text of the first corruption.
class FirstFinding final : public qcow2::CheckObserver {
 public:
  // `cancel` outlives it.
  FirstFinding(const Cancel& cancel, uint64_t cluster_size)
      : cancel_(cancel), cluster_size_(cluster_size) {}

  void found(const qcow2::Finding& finding) override {
    if (finding.severity == qcow2::Finding::Severity::kCorruption && first_.empty())
      first_ = qcow2::describe(finding, cluster_size_);
  }
  bool cancelled() override { return cancel_.requested(); }
  // Empty: there was none.
  const std::string& first() const { return first_; }

 private:
  const Cancel& cancel_;
  const uint64_t cluster_size_;
  std::string first_;
};

// Sets length and blocks.  An error for what is no regular file.
Result<void> measure(const std::string& path, DiskFigures& figures);

// Sets all figures.  An error if there is corruption; leaks are counted.
Result<void> check_image(const std::string& path, qcow2::Format format, DiskFigures& figures,
                         const Cancel& cancel);

}  // namespace vc::optimize
