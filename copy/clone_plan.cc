#include "copy/clone_plan.h"

#include <optional>
#include <string>

namespace vc::copy {

namespace {

// Returns what prevents clones.
std::optional<std::string> obstacle(const CopyOptions& options, const CopyPlan& plan,
                                    const Source& source) {
  if (source.files().empty()) return source.name() + " is not an image file";
  if (options.is_update()) return "--bitmap writes into an earlier copy";
  if (plan.destination.kind != DestinationType::Kind::kFile)
    return options.destination + " is not a file";
  if (plan.worker.compression && !plan.worker.keep_plain)
    return "all data is compressed, so all must be read";
  if (plan.build.encryption) return options.destination + " would be encrypted";
  if (options.salvage) return "--salvage must read all data";
  if (options.image.preallocation == Preallocation::kFalloc ||
      options.image.preallocation == Preallocation::kFull)
    return "preallocation reserves space, which clones do not have";
  return std::nullopt;
}

}  // namespace

Result<bool> may_clone(const CopyOptions& options, const CopyPlan& plan, const Source& source) {
  if (options.reflink == Reflink::kNever) return false;
  const auto found = obstacle(options, plan, source);
  if (!found) return true;
  if (options.reflink == Reflink::kAuto) return false;
  return fail(Error::invalid(options.destination + ": failed to clone: " + *found +
                             ": --reflink=auto copies what cannot be cloned"));
}

}  // namespace vc::copy
