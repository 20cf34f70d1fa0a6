#include "optimize/disk_repair.h"

#include <fmt/format.h>

#include "optimize/image_check.h"
#include "qcow2/check/checker.h"
#include "qcow2/format/format_probe.h"
#include "qcow2/repair/repair.h"
#include "storage/file_storage.h"

namespace vc::optimize {

namespace {

bool is_marked(const qcow2::Header& header) {
  constexpr uint64_t kMarks = qcow2::incompatible::kDirty | qcow2::incompatible::kCorrupt;
  return (header.incompatible_features & kMarks) != 0;
}

}  // namespace

Result<bool> repair_disk(const OptimizeOptions& options, const std::string& disk, StepLog& steps,
                         appliance::Observer& observer, const Cancel& cancel, bool with_marks) {
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_writable(disk));
  RETURN_IF_ERROR(file->lock(ImageClaim::writing(), "shut down the guest that uses it"));
  auto format = options.format;
  if (!format) {
    ASSIGN_OR_RETURN(format, qcow2::probe_format(*file));
  }
  if (*format != qcow2::Format::kQcow2) return false;
  steps.begin("repair", "Checking whether the image needs a repair");
  {
    ASSIGN_OR_RETURN(auto checker, qcow2::Checker::open(*file, {}));
    FirstFinding findings(cancel, checker.header().geometry().cluster_size());
    ASSIGN_OR_RETURN(const auto sums, checker.run(findings));
    // Leaks need no repair: the copy leaves them behind.
    const bool marked = with_marks && is_marked(checker.header());
    if (sums.corruptions + sums.check_errors == 0 && !marked) return false;
  }
  const std::string undo = disk + ".undo";
  FirstFinding findings(cancel, 1);
  ASSIGN_OR_RETURN(
      const auto done,
      qcow2::repair(file, {qcow2::RepairOptions::What::kAll, {}, false, undo, false}, findings));
  observer.warning(
      fmt::format("{}: {} corruptions and {} leaks were repaired; to undo the repair: virt-compact "
                  "check --apply-undo {} {}",
                  disk, done.corruptions_fixed, done.leaks_fixed, undo, disk));
  return true;
}

}  // namespace vc::optimize
