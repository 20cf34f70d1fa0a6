#include "qcow2/relocate/leaks.h"

#include <fmt/format.h>

#include <algorithm>

#include "qcow2/check/checker.h"
#include "qcow2/repair/repair.h"

namespace vc::qcow2 {

namespace {

// Keeps the first corruption that a check finds.
class Findings final : public CheckObserver {
 public:
  Findings(Progress& progress, const Cancel& cancel, uint64_t cluster_size)
      : progress_(progress), cancel_(cancel), cluster_size_(cluster_size) {}

  void found(const Finding& finding) override {
    const bool harmless = finding.severity == Finding::Severity::kNote ||
                          finding.severity == Finding::Severity::kLeak;
    if (!harmless && first_.empty()) first_ = describe(finding, cluster_size_);
  }
  void progress(uint64_t done, uint64_t total) override { progress_.update(done, total); }
  bool cancelled() override { return cancel_.requested(); }
  const std::string& first() const { return first_; }

 private:
  Progress& progress_;
  const Cancel& cancel_;
  const uint64_t cluster_size_;
  std::string first_;
};

}  // namespace

Result<uint64_t> count_leaks(const Storage& storage, const std::string& repair_by,
                             Progress& progress, const Cancel& cancel) {
  CheckOptions options;
  options.count_memory = kCountMemory;
  ASSIGN_OR_RETURN(auto checker, Checker::open(storage, options));
  Findings findings(progress, cancel, checker.header().geometry().cluster_size());
  ASSIGN_OR_RETURN(const CheckSums sums, checker.run(findings));
  const uint64_t wrong = sums.corruptions + sums.check_errors;
  if (wrong == 0 && !sums.references_damaged) return sums.leaks;
  return fail(Error::corrupt(fmt::format(
      "{}: the image is damaged in {} place{}{}{}: repair it first ({})", storage.name(),
      std::max<uint64_t>(wrong, 1), wrong > 1 ? "s" : "",
      findings.first().empty() ? "" : ", the first of them: ", findings.first(), repair_by)));
}

// An interrupted run may have left a cluster that two states shared in two places, each with two
// counts and one reference: there the COPIED flags must follow the lower counts, so that this is a
// repair of all.
Result<uint64_t> free_leaks(const std::shared_ptr<Storage>& storage, Progress& progress,
                            const Cancel& cancel) {
  RepairOptions options;
  options.what = RepairOptions::What::kAll;
  options.check.count_memory = kCountMemory;
  Findings findings(progress, cancel, 1);
  ASSIGN_OR_RETURN(const RepairResult repaired, repair(storage, options, findings));
  return repaired.after.leaks;
}

}  // namespace vc::qcow2
