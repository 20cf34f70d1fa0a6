#include "plugin/served_image.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace plugin {

using qcow2::Error;
using qcow2::Result;
using qcow2::Snapshot;

namespace {

constexpr std::string_view kSnapshotPrefix = "snapshot:";

std::string describe(const Snapshot& snapshot) {
  const auto when = static_cast<std::time_t>(snapshot.date_seconds);
  std::tm utc{};
  gmtime_r(&when, &utc);
  std::string text = fmt::format("snapshot {} '{}' of {:%Y-%m-%d %H:%M:%S} UTC, {} bytes",
                                 snapshot.id, snapshot.name, utc, snapshot.disk_size);
  if (snapshot.vm_state_size > 0)
    text += fmt::format(", with {} bytes of VM state", snapshot.vm_state_size);
  return text;
}

}  // namespace

Result<std::unique_ptr<ServedImage>> ServedImage::open(const Config& config) {
  ASSIGN_OR_RETURN(qcow2::Chain chain, qcow2::Chain::open(config.file, config.open));
  qcow2::Disk main = chain.disk();
  if (!config.snapshot.empty()) {
    ASSIGN_OR_RETURN(main, chain.snapshot(config.snapshot));
  }
  return std::unique_ptr<ServedImage>(new ServedImage(config, std::move(chain), std::move(main)));
}

const Snapshot* ServedImage::snapshot_of(std::string_view export_name) const {
  if (!export_name.starts_with(kSnapshotPrefix)) return nullptr;
  return qcow2::find_snapshot(chain_.image()->snapshots(),
                              export_name.substr(kSnapshotPrefix.size()));
}

std::vector<ServedImage::Export> ServedImage::exports() const {
  std::vector<Export> exports{{"", *description("")}};
  const auto& snapshots = chain_.image()->snapshots();
  for (const Snapshot& snapshot : snapshots) {
    // By name as long as that is the snapshot that the name finds; a name may stand twice, or be
    // another's id.
    const bool by_name = qcow2::find_snapshot(snapshots, snapshot.name) == &snapshot;
    exports.push_back({fmt::format("{}{}", kSnapshotPrefix, by_name ? snapshot.name : snapshot.id),
                       describe(snapshot)});
  }
  return exports;
}

Result<qcow2::Disk> ServedImage::disk(std::string_view export_name) const {
  if (export_name.empty()) return main_;
  if (!export_name.starts_with(kSnapshotPrefix))
    return qcow2::fail(Error::invalid(fmt::format(
        "{}: there is no export '{}': there are '' and snapshot:NAME", config_.file, export_name)));
  return chain_.snapshot(export_name.substr(kSnapshotPrefix.size()));
}

std::optional<std::string> ServedImage::description(std::string_view export_name) const {
  if (export_name.empty()) {
    if (config_.snapshot.empty())
      return fmt::format("disk of {} bytes in a QCOW2 image", main_.size());
    return describe(*qcow2::find_snapshot(chain_.image()->snapshots(), config_.snapshot));
  }
  const Snapshot* const snapshot = snapshot_of(export_name);
  if (!snapshot) return std::nullopt;
  return describe(*snapshot);
}

uint64_t ServedImage::preferred_block_size() const {
  // Smaller reads of a compressed cluster decode it more than once.  A page at least, as the
  // protocol recommends.
  return std::max<uint64_t>(chain_.image()->geometry().cluster_size(), 4096);
}

}  // namespace plugin
