#include "live/frozen_base.h"

#include <fcntl.h>
#include <fmt/format.h>

#include "copy/carried_bitmaps.h"
#include "copy/unknown_extensions.h"
#include "live/watched_copy.h"
#include "optimize/gain.h"
#include "optimize/image_check.h"
#include "optimize/kept_layout.h"
#include "optimize/own_files.h"
#include "qcow2/build/create_image.h"
#include "qcow2/format/header.h"
#include "qcow2/read/chain.h"
#include "storage/file_storage.h"

namespace vc::live {

namespace {

// libvirt gives the bitmaps of the overlay, which have the changes of the run, to the fresh image.
// A bitmap that the fresh image lacks would get these only, and look complete.
Result<void> check_bitmaps(const qcow2::Image& base) {
  ASSIGN_OR_RETURN(const auto selection, copy::select_bitmaps(base));
  if (selection.left_out.empty()) return {};
  return fail(Error::unsupported(fmt::format(
      "{}: {}: delete it, with its checkpoint (virsh checkpoint-delete), and make a full backup",
      base.name(), selection.left_out.front())));
}

// Tells what no copy keeps.
void warn_of_losses(const RunContext& context, const std::string& disk, const qcow2::Image& base) {
  const std::string unknown = copy::describe_unknown_extensions(base.header());
  if (!unknown.empty()) context.observer.warning(disk + ": " + unknown);
  if (!base.header().backing_file.empty() &&
      context.options.optimize.copy.image.backing_file.empty())
    context.observer.warning(
        fmt::format("{}: the data of {} is copied into the result, which no longer needs that file",
                    disk, base.header().backing_file));
}

Result<copy::CopyOptions> copy_options(const RunContext& context, const LiveFolder& folder,
                                       const qcow2::Chain& chain) {
  const optimize::OptimizeOptions& options = context.options.optimize;
  copy::CopyOptions how = options.copy;
  how.source = folder.path_to(folder.backup());
  how.source_format = qcow2::Format::kQcow2;
  how.destination = folder.path_to(folder.fresh());
  how.format = qcow2::Format::kQcow2;
  how.verify = true;
  how.keep_compression = options.keep_compression;
  const qcow2::Image& base = *chain.image();
  if (!options.drop_bitmaps) {
    RETURN_IF_ERROR(check_bitmaps(base));
    how.bitmaps = copy::BitmapChoice::kValid;
  }
  size_t snapshots = 0;
  if (how.snapshots) {
    ASSIGN_OR_RETURN(const auto kept,
                     copy::kept_snapshots(base.snapshots(), how.snapshots->dropped, how.source));
    snapshots = kept.size();
    if (kept.empty()) how.snapshots.reset();
  }
  optimize::keep_layout(base.header(), snapshots, how);
  return how;
}

Result<qcow2::Chain> open_base(const RunContext& context, const LiveFolder& folder) {
  qcow2::OpenOptions how;
  how.format = qcow2::Format::kQcow2;
  how.trust = context.options.optimize.copy.trust;
  return qcow2::Chain::open(folder.path_to(folder.backup()), how);
}

// Returns true if the result differs from the disk only in size and order.
bool is_same_disk(const copy::CopyOptions& how, const qcow2::Image& base) {
  const bool drops_snapshots =
      !base.snapshots().empty() && (!how.snapshots || !how.snapshots->dropped.empty());
  return !drops_snapshots && base.header().backing_file == how.image.backing_file;
}

Result<bool> is_worth(const RunContext& context, const qcow2::Chain& chain,
                      const copy::CopyOptions& how, RunMeter& meter, LiveDiskReport& report) {
  const auto& limit = context.options.optimize.limit;
  if (!limit || !is_same_disk(how, *chain.image())) return true;
  meter.begin_step("measure", "Estimating the size of a fresh image");
  ASSIGN_OR_RETURN(report.gain, optimize::predict_gain(how, chain, report.before.file.blocks,
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
  RETURN_IF_ERROR(optimize::check_image(folder.path_to(folder.backup()), qcow2::Format::kQcow2,
                                        report.before, context.cancel));
  copy::CopyOptions how;
  {
    ASSIGN_OR_RETURN(const auto chain, open_base(context, folder));
    ASSIGN_OR_RETURN(how, copy_options(context, folder, chain));
    ASSIGN_OR_RETURN(const bool worth, is_worth(context, chain, how, meter, report));
    if (!worth) return false;
    warn_of_losses(context, report.disk, *chain.image());
  }
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
