#include "nbdkit/serving/snapshot_exports.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <unordered_map>

#include "base/printable.h"

namespace vc::nbdkit {

using qcow2::Snapshot;

namespace {

// Limits: NBD's on a name or description (bytes), and nbdkit's on a list of exports.
constexpr size_t kLongestText = 4096;
constexpr size_t kMostExports = 10000;
// Maximum bytes of a name in a description, so that the rest fits.
constexpr size_t kLongestShown = 256;

std::string shown(const std::string& text) {
  return printable(std::string_view(text).substr(0, kLongestShown));
}

}  // namespace

std::string describe_disk(uint64_t size) {
  return fmt::format("disk of {} bytes in a QCOW2 image", size);
}

std::string describe(const Snapshot& snapshot) {
  const auto when = static_cast<std::time_t>(snapshot.date_seconds);
  std::tm utc{};
  gmtime_r(&when, &utc);
  std::string text = fmt::format("snapshot {} '{}' of {:%Y-%m-%d %H:%M:%S} UTC, {} bytes",
                                 shown(snapshot.id), shown(snapshot.name), utc, snapshot.disk_size);
  if (snapshot.vm_state_size > 0)
    text += fmt::format(", with {} bytes of VM state", snapshot.vm_state_size);
  return text;
}

std::vector<Export> list_snapshot_exports(const std::vector<Snapshot>& snapshots) {
  // The snapshot that each word finds: an ID takes precedence over a name, and the first of several
  // is used.
  std::unordered_map<std::string_view, const Snapshot*> found;
  for (const auto member : {&Snapshot::id, &Snapshot::name})
    for (const Snapshot& snapshot : snapshots) found.try_emplace(snapshot.*member, &snapshot);

  std::vector<Export> exports;
  for (const Snapshot& snapshot : snapshots) {
    if (exports.size() + 1 == kMostExports) break;
    for (const std::string* word : {&snapshot.name, &snapshot.id}) {
      std::string name = fmt::format("{}{}", kSnapshotPrefix, *word);
      if (found.at(*word) != &snapshot || name.size() > kLongestText || printable(name) != name)
        continue;
      exports.push_back({std::move(name), describe(snapshot)});
      break;
    }
  }
  return exports;
}

}  // namespace vc::nbdkit
