#include "plugin/served_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "qcow2/repair/deallocation.h"
#include "qcow2/write/chain_writer.h"

namespace vc::plugin {

using qcow2::Snapshot;

Result<std::unique_ptr<ServedImage>> ServedImage::open(const Config& config) {
  ASSIGN_OR_RETURN(qcow2::Chain chain, qcow2::Chain::open(config.file, config.open));
  std::unique_ptr<ServedImage> image(new ServedImage(std::move(chain), config));
  if (config.snapshot.empty()) {
    qcow2::Disk disk = image->chain_.disk();
    std::string description = nbdkit::describe_disk(disk.size());
    image->main_ = std::make_shared<ServedDisk>(std::move(disk), std::move(description));
  } else {
    ASSIGN_OR_RETURN(image->main_, image->snapshot(config.snapshot));
    image->main_is_snapshot_ = true;
  }
  image->exports_ = image->list_exports();
  return image;
}

std::vector<nbdkit::Export> ServedImage::list_exports() const {
  auto exports = nbdkit::list_snapshot_exports(chain_.image()->snapshots());
  exports.insert(exports.begin(), {"", main_->description()});
  return exports;
}

Result<std::shared_ptr<ServedDisk>> ServedImage::disk(std::string_view export_name) const {
  if (export_name.empty()) return main_;
  if (!export_name.starts_with(nbdkit::kSnapshotPrefix))
    return fail(Error::invalid(
        fmt::format("{}: there is no export '{}': the exports are '' and snapshot:NAME",
                    chain_.storage()->name(), export_name)));
  return snapshot(export_name.substr(nbdkit::kSnapshotPrefix.size()));
}

Result<std::shared_ptr<ServedDisk>> ServedImage::snapshot(std::string_view id_or_name) const {
  const Snapshot* const found = qcow2::find_snapshot(chain_.image()->snapshots(), id_or_name);
  const MutexLock lock(mutex_);
  if (found) {
    if (auto disk = snapshots_[found].lock()) return disk;
  }
  // Returns the error if there is no such snapshot.
  ASSIGN_OR_RETURN(qcow2::Disk disk, chain_.snapshot(id_or_name));
  auto served = std::make_shared<ServedDisk>(std::move(disk), nbdkit::describe(*found));
  snapshots_[found] = served;
  return served;
}

Result<void> ServedImage::start_writing(ServedDisk& disk, std::string& why) {
  if (main_is_snapshot_ || &disk != main_.get()) return {};
  const MutexLock lock(mutex_);
  if (disk.write_path() || read_only_for_good_) return {};
  if (force_share_)
    return fail(Error::invalid(chain_.storage()->name() +
                               ": force-share=true is only for reading: start nbdkit with -r"));
  auto writer = qcow2::open_writer(chain_, write_options_.writer);
  if (writer) {
    disk.set_write_path(std::make_unique<WritePath>(std::move(*writer), write_options_));
    return {};
  }
  const Error& error = writer.error();
  const bool for_good = error.kind() != Error::Kind::kSystem || error.errnum() == EACCES ||
                        error.errnum() == EPERM || error.errnum() == EROFS;
  if (!for_good) return fail(error);
  read_only_for_good_ = true;
  why = error.message();
  return {};
}

Result<void> ServedImage::close() {
  WritePath* const path = main_->write_path();
  if (!path) return {};
  RETURN_IF_ERROR(path->close());
  if (!path->trimmed()) return {};
  // Another program may have freed clusters without discarding their data.
  ASSIGN_OR_RETURN([[maybe_unused]] const uint64_t deallocated,
                   with_context(qcow2::deallocate_if_sound(chain_.storage()),
                                "free clusters cannot be deallocated"));
  return {};
}

std::optional<qcow2::DiskWriter::Statistics> ServedImage::statistics() const {
  const WritePath* const path = main_->write_path();
  if (!path) return std::nullopt;
  return path->writer().statistics();
}

uint64_t ServedImage::preferred_block_size() const {
  // Smaller reads decode a compressed cluster repeatedly. At least a page, as the protocol
  // recommends.
  return std::max<uint64_t>(chain_.image()->geometry().cluster_size(), 4096);
}

}  // namespace vc::plugin
