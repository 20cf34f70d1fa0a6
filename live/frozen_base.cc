#include "live/frozen_base.h"

#include <fcntl.h>

#include "live/watched_copy.h"
#include "optimize/gain.h"
#include "optimize/image_check.h"
#include "optimize/kept_layout.h"
#include "optimize/own_files.h"
#include "qcow2/build/create_image.h"
#include "qcow2/format/header.h"
#include "storage/file_storage.h"

namespace vc::live {

namespace {

copy::CopyOptions copy_options(const RunContext& context, const LiveFolder& folder) {
  const optimize::OptimizeOptions& options = context.options.optimize;
  copy::CopyOptions how = options.copy;
  how.snapshots.reset();
  how.source = folder.path_to(folder.backup());
  how.source_format = qcow2::Format::kQcow2;
  how.destination = folder.path_to(folder.fresh());
  how.format = qcow2::Format::kQcow2;
  how.verify = true;
  how.keep_compression = options.keep_compression;
  return how;
}

Result<bool> is_worth(const RunContext& context, const copy::CopyOptions& how, RunMeter& meter,
                      LiveDiskReport& report) {
  const auto& limit = context.options.optimize.limit;
  if (!limit) return true;
  meter.begin_step("measure", "Estimating the size of a fresh image");
  qcow2::OpenOptions opening;
  opening.format = qcow2::Format::kQcow2;
  opening.trust = how.trust;
  ASSIGN_OR_RETURN(const auto chain, qcow2::Chain::open(how.source, opening));
  ASSIGN_OR_RETURN(report.gain, optimize::foretell_gain(how, chain, report.before.file.blocks,
                                                        report.before.file.length, context.progress,
                                                        context.cancel));
  return report.gain->is_worth(*limit);
}

Result<void> carry_over(const LiveFolder& folder, int fresh, const Owner& owner) {
  const std::string path = folder.path_to(folder.fresh());
  if (!folder.directory().holds(folder.fresh(), FileIdentity::of(fresh)))
    return fail(Error::invalid(path + ": another process has replaced this file"));
  ASSIGN_OR_RETURN(const Descriptor old, folder.directory().open_file(folder.backup(), O_RDONLY));
  return carry_rights(old.get(), fresh, owner, path);
}

}  // namespace

Result<void> create_overlay(const LiveFolder& folder, const std::string& name,
                            const std::string& base, const Owner& owner) {
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly_in(folder.directory(), base));
  ASSIGN_OR_RETURN(const auto header, qcow2::Header::read(*file, qcow2::Header::Purpose::kTell));
  qcow2::BuildOptions build;
  build.size = header.size;
  build.cluster_bits = header.cluster_bits;
  build.extended_l2 = header.extended_l2();
  build.backing_file = base;
  build.backing_format = "qcow2";
  const optimize::PrivateFiles mine;
  const std::string path = folder.path_to(name);
  ASSIGN_OR_RETURN(const Descriptor made, qcow2::create_image(path, build));
  return carry_rights(file->descriptor(), made.get(), owner, path);
}

Result<bool> copy_frozen_base(const RunContext& context, const LiveFolder& folder,
                              const Owner& owner, RunMeter& meter, LiveDiskReport& report) {
  RETURN_IF_ERROR(folder.remove_unused(folder.fresh()));
  meter.begin_step("check", "Checking the image, to which the guest no longer writes");
  copy::CopyOptions how = copy_options(context, folder);
  RETURN_IF_ERROR(
      optimize::check_image(how.source, qcow2::Format::kQcow2, report.before, context.cancel));
  {
    ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(how.source));
    ASSIGN_OR_RETURN(const auto header, qcow2::Header::read(*file, qcow2::Header::Purpose::kTell));
    optimize::keep_layout(header, 0, how);
  }
  ASSIGN_OR_RETURN(const bool worth, is_worth(context, how, meter, report));
  if (!worth) return false;
  meter.begin_step("copy", "Copying the data in use, and verifying the copy");
  {
    const optimize::PrivateFiles mine;
    ASSIGN_OR_RETURN(report.copied, copy_watched(context, folder, how));
  }
  meter.begin_step("check result", "Checking the result");
  RETURN_IF_ERROR(
      optimize::check_image(how.destination, qcow2::Format::kQcow2, report.after, context.cancel));
  if (!report.copied.file)
    return fail(Error::invalid(how.destination + ": is not a file that can be swapped"));
  RETURN_IF_ERROR(carry_over(folder, report.copied.file->get(), owner));
  // QEMU must be able to lock it.
  report.copied.file.reset();
  return true;
}

}  // namespace vc::live
