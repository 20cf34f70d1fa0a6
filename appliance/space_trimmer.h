// Trims one filesystem, swap partition, or free space of a volume group at a time.
#pragma once

#include <functional>
#include <vector>

#include "appliance/appliance.h"
#include "appliance/survey.h"
#include "appliance/trim_options.h"
#include "appliance/trim_report.h"
#include "base/result.h"

namespace vc::appliance {

// Returns a report that has only the names, the type and the size of `space`.
TrimmedSpace named(const Space& space);

class SpaceTrimmer {
 public:
  // All arguments must outlive the object. `filled` is called with the bytes filled with zeros.
  SpaceTrimmer(const Appliance& appliance, const TrimOptions& options,
               std::vector<DroppedFile>& dropped)
      : it_(appliance), options_(options), dropped_(dropped) {}

  // Trims a space. Returns the outcome, without the freed bytes. Reports failures in the outcome.
  // Returns an error only after a cancellation, or if the appliance does not work any more.
  Result<TrimmedSpace> trim(const Space& space, const std::function<void(uint64_t)>& filled);

 private:
  using Outcome = TrimmedSpace::Outcome;

  Result<void> handle(const Space& space, const std::function<void(uint64_t)>& filled,
                      TrimmedSpace& result);
  Result<void> trim_filesystem(const Space& space, const std::function<void(uint64_t)>& filled,
                               TrimmedSpace& result);
  Result<bool> has_shadow_copies(const Space& space);
  Result<bool> has_shadow_copy_files(const Space& space);
  Result<void> trim_mounted(const Space& space, const std::function<void(uint64_t)>& filled,
                            TrimmedSpace& result);
  Result<void> discard_swap(const Space& space, TrimmedSpace& result);
  Result<void> discard_free_space(const Space& space, TrimmedSpace& result);

  const Appliance& it_;
  const TrimOptions& options_;
  std::vector<DroppedFile>& dropped_;
};

}  // namespace vc::appliance
