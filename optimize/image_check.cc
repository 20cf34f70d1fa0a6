#include "optimize/image_check.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/retry.h"
#include "storage/file_storage.h"

namespace vc::optimize {

Result<void> measure(const std::string& path, DiskFigures& figures, Devices devices) {
  struct stat status {};
  if (retry(::stat, path.c_str(), &status) != 0) return fail(Error::system(errno, path));
  if (S_ISBLK(status.st_mode) && devices == Devices::kAccepted) {
    ASSIGN_OR_RETURN(const auto device, FileStorage::open_readonly(path));
    figures.file = {};
    ASSIGN_OR_RETURN(figures.file.length, device->size());
    return {};
  }
  if (!S_ISREG(status.st_mode))
    return fail(Error::invalid(path + ": is not a regular file: use virt-compact copy"));
  figures.file = FileSize::of(status);
  return {};
}

Result<void> check_image(const std::string& path, qcow2::Format format, DiskFigures& figures,
                         const Cancel& cancel, Devices devices) {
  RETURN_IF_ERROR(measure(path, figures, devices));
  if (format == qcow2::Format::kRaw) return {};
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(path));
  ASSIGN_OR_RETURN(auto checker, qcow2::Checker::open(*file, {}));
  FirstFinding findings(cancel, checker.header().geometry().cluster_size());
  ASSIGN_OR_RETURN(const auto sums, checker.run(findings));
  if (sums.corruptions + sums.check_errors > 0)
    return fail(Error::corrupt(
        fmt::format("{}: the image is damaged in {} place{}{}{}: list the errors with virt-compact "
                    "check, or use --repair",
                    path, sums.corruptions + sums.check_errors,
                    sums.corruptions + sums.check_errors == 1 ? "" : "s",
                    findings.first().empty() ? "" : ", the first of them: ", findings.first())));
  figures.clusters = sums.total_clusters;
  figures.allocated = sums.allocated_clusters;
  figures.compressed = sums.compressed_clusters;
  figures.fragmented = sums.fragmented_clusters;
  figures.leaks = sums.leaks;
  return {};
}

}  // namespace vc::optimize
