#include "optimize/plan_lines.h"

#include <fmt/format.h>

namespace vc::optimize {

namespace {

using Way = PlannedVolume::Way;

std::string mebibytes(uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string line(const PlannedVolume& volume, bool in_place) {
  const std::string name =
      volume.type.empty() ? volume.device : fmt::format("{} ({})", volume.device, volume.type);
  switch (volume.way) {
    case Way::kMetadata:
      return fmt::format("{}: {} are free, of which the image stores {}", name,
                         mebibytes(volume.free.value_or(0)), mebibytes(volume.stored));
    case Way::kAppliance:
      return fmt::format("{}: needs the appliance: {}", name, volume.why);
    case Way::kWhole:
      break;
  }
  return fmt::format("{}: {}: {}", name, in_place ? "is not trimmed" : "is copied completely",
                     volume.why);
}

}  // namespace

void tell_plan(const FreeSpacePlan& plan, const std::string& disk, appliance::Observer& observer,
               bool in_place) {
  for (const PlannedVolume& volume : plan.volumes) observer.step(line(volume, in_place));
  for (const auto& file : plan.dropped)
    observer.step(
        fmt::format("{}: {} becomes zeros, {}", file.device, file.path, mebibytes(file.bytes)));
  for (const std::string& it : plan.not_dropped) observer.warning(it);
  if (const std::string why = plan.why_nothing(); !why.empty())
    observer.warning(fmt::format("{}: nothing was trimmed{}: {}", disk,
                                 in_place ? "" : ", so all data is copied", why));
  if (plan.trimming != Trimming::kAppliance && plan.boots)
    observer.step("The appliance is needed: " + plan.why);
}

}  // namespace vc::optimize
