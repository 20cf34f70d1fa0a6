#include "optimize/trim_overlay.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "qcow2/build/create_image.h"
#include "qcow2/format/header.h"
#include "storage/directory.h"
#include "storage/file_storage.h"

namespace vc::optimize {

namespace {

// Cluster size of the overlay. Its subclusters have 4 KiB, the block size of most filesystems.
constexpr unsigned kOverlayClusterBits = 17;

std::string overlay_name(const OptimizeOptions& options, const std::string& disk) {
  std::string name = name_beside(options.output.empty() ? disk : options.output, ".overlay");
  if (options.overlay_folder.empty()) return name;
  return options.overlay_folder + "/" + name.substr(name.rfind('/') + 1);
}

}  // namespace

TrimOverlay::TrimOverlay(const OptimizeOptions& options, const SourceDisk& disk,
                         OptimizeReport& report, StepLog& steps, appliance::Observer& observer)
    : options_(options),
      disk_(disk),
      report_(report),
      steps_(steps),
      observer_(observer),
      path_(overlay_name(options, disk.path())) {}

std::string TrimOverlay::name() const {
  return path_of_descriptor(file_.get(), ::getpid());
}

// Removes the overlay of a killed run.
Result<void> TrimOverlay::clear() {
  ASSIGN_OR_RETURN(const Directory folder, Directory::open(Directory::parent_of(path_)));
  const std::string name = Directory::name_of(path_);
  if (!folder.status(name)) return {};
  ASSIGN_OR_RETURN(const auto left, FileStorage::open_readonly_in(folder, name));
  RETURN_IF_ERROR(left->lock(ImageClaim::writing(), "another run is active"));
  const auto header = qcow2::Header::read(*left, qcow2::Header::Purpose::kTell);
  if (!header || header->cluster_bits != kOverlayClusterBits || !header->extended_l2() ||
      header->backing_file != disk_.path() || !folder.holds(name, left->identity()))
    return fail(Error::invalid(
        path_ + ": exists, and was not made by this command: move it to another place"));
  RETURN_IF_ERROR(folder.remove(name));
  observer_.warning(fmt::format("{}: an earlier run was stopped: its overlay is removed", path_));
  return {};
}

Result<void> TrimOverlay::make() {
  steps_.begin("trim", "Creating an overlay for the trim");
  qcow2::BuildOptions build;
  build.size = report_.virtual_size;
  build.cluster_bits = kOverlayClusterBits;
  build.extended_l2 = true;
  build.backing_file = disk_.path();
  build.backing_format = qcow2::to_string(report_.format);
  // What the guest writes stays encrypted.
  build.encryption = disk_.encryption();
  const PrivateFiles mine;
  ASSIGN_OR_RETURN(file_, qcow2::create_image(path_, build));
  own_.emplace(path_, file_.get());
  return {};
}

Result<void> TrimOverlay::trim(const Cancel& cancel) {
  appliance::TrimOptions trimming = options_.trimming;
  trimming.known = report_.plan.known_devices();
  trimming.disks = {
      {name(), {}, qcow2::Format::kQcow2, path_, options_.copy.trust.names.for_own_image()}};
  trimming.disks.back().keys = options_.copy.trust.keys;
  trimming.overlay = true;
  ASSIGN_OR_RETURN(report_.trimmed, appliance::trim(trimming, observer_, cancel));
  if (const std::string why = report_.trimmed->why_nothing(); !why.empty())
    observer_.warning(
        fmt::format("{}: nothing was trimmed, so all data is copied: {}", disk_.path(), why));
  for (const auto& space : report_.trimmed->spaces) {
    if (space.outcome != appliance::TrimmedSpace::Outcome::kFailed) continue;
    if (space.touched)
      return fail(Error::protocol(
          EIO, fmt::format("{}: trimming has failed: {}: exclude this filesystem with --ignore {}",
                           space.device, space.why, space.device)));
    observer_.warning(fmt::format("{}: not trimmed: {}", space.device, space.why));
  }
  return {};
}

}  // namespace vc::optimize
