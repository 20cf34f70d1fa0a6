// Progress of a job that has several parts: the disk, and each of its snapshots.
#pragma once

#include <cstdint>
#include <optional>

#include "base/progress.h"

namespace vc::copy {

// Without set_total(), passes everything on.
class PartProgress final : public Progress {
 public:
  explicit PartProgress(Progress& to) : to_(to) {}

  // Sets the bytes of all parts, and returns to the first part.
  void set_total(uint64_t total) {
    total_ = total;
    before_ = 0;
    part_ = 0;
  }
  // Begins the next part.
  void next() {
    before_ += part_;
    part_ = 0;
  }

  void begin(Phase phase) override {
    if (total_ && phase_ == phase) return;
    phase_ = phase;
    to_.begin(phase);
  }
  void update(uint64_t done, uint64_t total) override {
    if (!total_) return to_.update(done, total);
    part_ = total;
    to_.update(before_ + done, *total_);
  }

 private:
  Progress& to_;
  std::optional<uint64_t> total_;  // nullopt: a single part
  uint64_t before_ = 0;            // bytes of the parts that are done
  uint64_t part_ = 0;              // bytes of the current part
  std::optional<Phase> phase_;
};

}  // namespace vc::copy
