// The findings of a check, limited to a readable number.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "qcow2/check/checker.h"

namespace vc::tool {

// Keeps the first findings of each kind and counts the rest.
class CheckLog final : public qcow2::CheckObserver {
 public:
  static constexpr size_t kFew = 50;
  static constexpr size_t kMany = 10000;

  CheckLog(size_t most_of_a_kind, Progress& progress, const Cancel& cancel)
      : most_(most_of_a_kind), progress_(progress), cancel_(cancel) {}

  void found(const qcow2::Finding& finding) override {
    if (++seen_[finding.kind] <= most_) findings_.push_back(finding);
  }
  void progress(uint64_t done, uint64_t total) override { progress_.update(done, total); }
  bool cancelled() override { return cancel_.requested(); }

  const std::vector<qcow2::Finding>& findings() const { return findings_; }
  // Returns the number of findings of each kind that were not kept.
  std::map<qcow2::Finding::Kind, uint64_t> omitted() const {
    std::map<qcow2::Finding::Kind, uint64_t> omitted;
    for (const auto& [kind, count] : seen_)
      if (count > most_) omitted[kind] = count - most_;
    return omitted;
  }

 private:
  const size_t most_;
  Progress& progress_;
  const Cancel& cancel_;
  std::vector<qcow2::Finding> findings_;
  std::map<qcow2::Finding::Kind, uint64_t> seen_;
};

}  // namespace vc::tool
