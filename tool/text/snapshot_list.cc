#include "tool/text/snapshot_list.h"

#include <fmt/format.h>

#include <ctime>

#include "base/printable.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using nlohmann::ordered_json;
using qcow2::Snapshot;

namespace {

constexpr uint64_t kNanoseconds = 1'000'000'000;

// Formats local time, as QEMU does.
std::string date_text(const Snapshot& snapshot) {
  const time_t seconds = snapshot.date_seconds;
  tm date{};
  ::localtime_r(&seconds, &date);
  char text[32];
  return std::string(text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &date));
}

std::string clock_text(const Snapshot& snapshot) {
  const uint64_t seconds = snapshot.vm_clock_nanoseconds / kNanoseconds;
  return fmt::format("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60,
                     snapshot.vm_clock_nanoseconds % kNanoseconds / 1'000'000);
}

}  // namespace

std::string snapshot_list(const std::vector<Snapshot>& snapshots) {
  if (snapshots.empty()) return {};
  constexpr const char* kRow = "{:<9} {:<16} {:>8} {:>19} {:>12} {:>10}\n";
  std::string text = "Snapshot list:\n";
  text += fmt::format(fmt::runtime(kRow), "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
  for (const Snapshot& it : snapshots)
    text += fmt::format(
        fmt::runtime(kRow), printable(it.id), printable(it.name), human_size(it.vm_state_size),
        date_text(it), clock_text(it),
        it.instruction_count == UINT64_MAX ? std::string() : std::to_string(it.instruction_count));
  return text;
}

ordered_json snapshot_json(const Snapshot& snapshot) {
  ordered_json json;
  if (snapshot.instruction_count != UINT64_MAX) json["icount"] = snapshot.instruction_count;
  json["vm-clock-nsec"] = snapshot.vm_clock_nanoseconds % kNanoseconds;
  json["name"] = snapshot.name;
  json["date-sec"] = snapshot.date_seconds;
  json["date-nsec"] = snapshot.date_nanoseconds;
  json["vm-clock-sec"] = snapshot.vm_clock_nanoseconds / kNanoseconds;
  json["id"] = snapshot.id;
  json["vm-state-size"] = snapshot.vm_state_size;
  json["disk-size"] = snapshot.disk_size;
  return json;
}

std::string snapshot_list_json(const std::vector<Snapshot>& snapshots) {
  ordered_json all = ordered_json::array();
  for (const Snapshot& it : snapshots) all.push_back(snapshot_json(it));
  return json_text(all);
}

}  // namespace vc::tool
