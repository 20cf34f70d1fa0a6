#include "optimize/source_disk.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/retry.h"
#include "copy/carried_bitmaps.h"
#include "copy/unknown_extensions.h"
#include "libvirt/running_domains.h"
#include "nbd/uri.h"
#include "optimize/disk_repair.h"
#include "optimize/kept_layout.h"
#include "optimize/own_files.h"
#include "qcow2/read/overlay_search.h"
#include "storage/file_storage.h"

namespace vc::optimize {

Result<void> SourceDisk::open() {
  steps_.begin("open", "Opening " + options_.disk);
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(options_.disk.c_str(), nullptr),
                                                    std::free);
  if (!real) return fail(Error::system(errno, options_.disk));
  disk_ = real.get();
  RETURN_IF_ERROR(measure(disk_, report_.before));
  if (!options_.output.empty()) RETURN_IF_ERROR(check_output());
  RETURN_IF_ERROR(check_libvirt());
  if (options_.repair && !options_.dry_run)
    RETURN_IF_ERROR(repair_disk(options_, disk_, steps_, observer_, cancel_));
  if (options_.trimming_by != Trimming::kNone && options_.output.empty())
    RETURN_IF_ERROR(check_readers());
  qcow2::OpenOptions how;
  how.format = options_.format;
  how.trust = options_.copy.trust;
  // By the given name: QEMU resolves the backing file's name relative to it.
  ASSIGN_OR_RETURN(auto chain, qcow2::Chain::open(options_.disk, how));
  chain_ = std::move(chain);
  if (chain_->format() == qcow2::Format::kLuks)
    return fail(
        Error::unsupported(options_.disk +
                           ": is a raw disk that is encrypted with LUKS, which can only be read: "
                           "virt-compact copy makes an encrypted QCOW2 image of it"));
  RETURN_IF_ERROR(check_links());
  report_.format = chain_->format();
  report_.result_format = options_.output_format.value_or(report_.format);
  report_.virtual_size = chain_->disk().size();
  if (options_.output.empty()) {
    if (!options_.copy.image.data_file.empty())
      return fail(
          Error::invalid("data_file: needs --output, because the virtual machine may not be "
                         "allowed to open a new file"));
    RETURN_IF_ERROR(plan_swap());
  }
  if (const auto& image = chain_->image()) {
    RETURN_IF_ERROR(check_snapshots(*image));
    RETURN_IF_ERROR(warn_of_losses(*image));
  }
  // Rejects conflicting options early, before a step that takes time.
  return copy::check(copy_options(disk_, destination_name()), cancel_);
}

// Finds the snapshots that the result keeps. A raw result has none.
Result<void> SourceDisk::check_snapshots(const qcow2::Image& image) {
  const auto& choice = options_.copy.snapshots;
  if (choice) {
    ASSIGN_OR_RETURN(const auto kept,
                     copy::kept_snapshots(image.snapshots(), choice->dropped, disk_));
    kept_snapshots_ = kept.size();
  }
  if (kept_snapshots_ > 0 && report_.result_format == qcow2::Format::kRaw)
    return fail(Error::invalid(fmt::format(
        "{}: has {} internal snapshot{}, which a raw result cannot have: allow this with "
        "--drop-snapshots, or first save {} with virt-compact snapshot --export",
        disk_, kept_snapshots_, kept_snapshots_ == 1 ? "" : "s",
        kept_snapshots_ == 1 ? "it" : "them")));
  if (!image.header().backing_file.empty() && options_.copy.image.backing_file.empty())
    observer_.warning(
        fmt::format("{}: the data of {} is copied into the result, which no longer needs that file",
                    disk_, image.header().backing_file));
  return {};
}

// A dry run keeps the leftovers of a stopped run.
Result<void> SourceDisk::plan_swap() {
  struct stat status {};
  const std::string left = name_beside(disk_, ".fresh");
  if (options_.dry_run && ::lstat(left.c_str(), &status) == 0) {
    observer_.warning(left +
                      ": was left by a run that was stopped: the next run that writes removes it");
    return {};
  }
  ASSIGN_OR_RETURN(auto swap, DiskSwap::plan(options_.disk, options_.backup_suffix));
  swap_.emplace(std::move(swap));
  tell_remarks();
  if (swap_->other_names() > 0)
    observer_.warning(fmt::format(
        "{}: has {} more name{} (hard links), which will keep referring to the old disk", disk_,
        swap_->other_names(), swap_->other_names() == 1 ? "" : "s"));
  return {};
}

std::string SourceDisk::destination_name() const {
  if (!options_.output.empty()) return options_.output;
  return swap_ ? swap_->fresh() : name_beside(disk_, ".fresh");
}

// Returns true if the result differs from the disk only in size and order.
bool SourceDisk::is_same_disk() const {
  if (!options_.output.empty()) return false;
  const auto& image = chain_->image();
  if (image && options_.drop_bitmaps &&
      image->header().find_extension(qcow2::HeaderExtension::kBitmaps) != nullptr)
    return false;
  return !image ||
         (image->snapshots().size() == kept_snapshots_ && !image->header().has_data_file() &&
          image->header().backing_file == options_.copy.image.backing_file);
}

// Rejects an output that is a link or a special file: its target would be overwritten, or removed
// after an error.
Result<void> SourceDisk::check_output() const {
  const std::string& output = options_.output;
  ASSIGN_OR_RETURN(const bool uri, nbd::is_nbd_uri(output));
  if (uri || output == "-" || output == "null:")
    return fail(Error::invalid(output + ": the result must be a file: use virt-compact copy"));
  struct stat status {};
  if (retry(::stat, output.c_str(), &status) != 0) return {};
  if (!S_ISREG(status.st_mode))
    return fail(Error::invalid(output + ": is not a regular file: use virt-compact copy"));
  if (!options_.overwrite)
    return fail(Error::invalid(output + ": exists already: use --force to replace it"));
  return {};
}

// Rejects a symbolic link that changes the backing file: an image resolves its backing file's name
// relative to the folder of the name by which it was opened.
Result<void> SourceDisk::check_links() {
  ASSIGN_OR_RETURN(unchanged_, Unchanged::since_now(*chain_));
  if (options_.disk == disk_) return {};
  qcow2::OpenOptions how;
  how.format = options_.format;
  how.trust = options_.copy.trust;
  const auto direct = qcow2::Chain::open(disk_, how);
  if (direct) {
    ASSIGN_OR_RETURN(const auto files, Unchanged::since_now(*direct));
    if (files.same_files(*unchanged_)) return {};
  }
  return fail(Error::invalid(
      fmt::format("{}: is a symbolic link to {}, and under that name the image has other backing "
                  "files{}: give the name that the virtual machine uses, without links, or make "
                  "the name of the backing file absolute",
                  options_.disk, disk_,
                  direct ? std::string() : fmt::format(" ({})", direct.error().message()))));
}

// A machine that runs on an overlay only reads its backing file, but locks it against writers.
Result<void> SourceDisk::check_readers() const {
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(disk_));
  return file->lock(ImageClaim::writing(), "shut down the guest that uses it");
}

// An overlay reads missing data from the disk. A trim, or a replayed journal, would change this
// data.
Result<void> SourceDisk::check_overlays() const {
  if (!swap_) return {};
  const auto overlay = qcow2::find_overlay(options_.disk, options_.others);
  if (!overlay) return {};
  return fail(Error::invalid(
      fmt::format("{}: is the backing file of {}, whose content would change: use --trim=none, "
                  "which keeps its content, or flatten that image first (virt-compact flatten)",
                  disk_, *overlay)));
}

// Warns of contents that no copy keeps.
Result<void> SourceDisk::warn_of_losses(const qcow2::Image& image) const {
  RETURN_IF_ERROR(warn_of_bitmaps(image));
  const std::string unknown = copy::describe_unknown_extensions(image.header());
  if (!unknown.empty()) observer_.warning(disk_ + ": " + unknown);
  if (image.header().has_data_file() && swap_)
    observer_.warning(
        fmt::format("{}: the content of its external data file is copied into the result; the data "
                    "file itself is kept for the old disk",
                    disk_));
  return {};
}

// Warns of persistent bitmaps that do not go along.
Result<void> SourceDisk::warn_of_bitmaps(const qcow2::Image& image) const {
  if (options_.drop_bitmaps) return {};
  ASSIGN_OR_RETURN(const auto selection, copy::select_bitmaps(image));
  for (const std::string& reason : selection.left_out)
    observer_.warning(fmt::format("{}: {}: the next backup must be a full backup", disk_, reason));
  const bool raw = report_.result_format == qcow2::Format::kRaw;
  const size_t count = selection.chosen.size();
  if (count > 0 && (raw || options_.copy.image.version.value_or(3) < 3))
    observer_.warning(fmt::format(
        "{}: its {} persistent bitmap{} not copied, because {} has none: the next backup must be a "
        "full backup",
        disk_, count, count == 1 ? " is" : "s are",
        raw ? "a raw disk" : "version 2 (compat=0.10)"));
  return {};
}

// Asks libvirt about cases that locks miss: indirect backing files, and shared storage without
// locks.
Result<void> SourceDisk::check_libvirt() const {
  ASSIGN_OR_RETURN(const auto remarks, libvirt::check_unused(disk_));
  for (const std::string& remark : remarks) observer_.warning(remark);
  return {};
}

void SourceDisk::tell_remarks() {
  for (; told_ < swap_->remarks().size(); ++told_) observer_.warning(swap_->remarks()[told_]);
}

std::optional<copy::SnapshotChoice> SourceDisk::carried_snapshots(const std::string& source) const {
  auto choice = options_.copy.snapshots;
  if (!choice || kept_snapshots_ == 0) return std::nullopt;
  if (source == disk_) return choice;
  choice->image = disk_;
  choice->format = report_.format;
  choice->trust = options_.copy.trust;
  return choice;
}

copy::CopyOptions SourceDisk::copy_options(const std::string& source,
                                           const std::string& destination) const {
  copy::CopyOptions how = options_.copy;
  how.source = source;
  if (source != disk_) how.trust.names = how.trust.names.for_own_image();
  how.source_format = source == disk_ ? report_.format : qcow2::Format::kQcow2;
  how.destination = destination;
  how.format = report_.result_format;
  how.overwrite = options_.output.empty() ? options_.dry_run : options_.overwrite;
  how.verify = true;
  how.unused = report_.plan.unused;
  how.keep_compression = options_.keep_compression;
  if (!options_.drop_bitmaps) how.bitmaps = copy::BitmapChoice::kValid;
  how.original = &*chain_;
  how.snapshots = carried_snapshots(source);
  // Takes the layout of the disk, not of the overlay.
  if (const auto& image = chain_->image()) keep_layout(image->header(), kept_snapshots_, how);
  return how;
}

}  // namespace vc::optimize
