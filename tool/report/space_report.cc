#include "tool/report/space_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/printable.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

using guest::Volume;
using nlohmann::ordered_json;
using Verdict = guest::Reading::Verdict;

const char* to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::kFree:
      return "known";
    case Verdict::kDoubt:
      return "unsure";
    case Verdict::kLeftAlone:
      return "left-alone";
    case Verdict::kSuspended:
      break;
  }
  return "suspended";
}

}  // namespace

std::string why_not_free(const Volume& volume) {
  switch (volume.verdict) {
    case Verdict::kFree:
      return "";
    case Verdict::kDoubt:
      return "not known: " + volume.why;
    case Verdict::kLeftAlone:
      return "left alone: " + volume.why;
    case Verdict::kSuspended:
      break;
  }
  return "the guest is suspended: " + volume.why;
}

std::string kept_whole(const guest::Inspection& inspection) {
  std::string text;
  const Volume* const suspended = inspection.suspended();
  for (const Volume& it : inspection.volumes) {
    std::string why = why_not_free(it);
    if (why.empty() && suspended != nullptr) why = why_not_free(*suspended);
    if (!why.empty())
      text += printable(fmt::format("  copied completely: {}: {}", it.device, why)) + "\n";
  }
  for (const std::string& doubt : inspection.doubts)
    text += printable("  copied completely: " + doubt) + "\n";
  return text;
}

namespace {

// For a volume group, only the free space is listed.
uint64_t used(const Volume& volume) {
  return volume.size - std::min(volume.free, volume.size);
}

std::string table(const SpaceReport& report, const Palette& palette) {
  size_t device = std::string_view("filesystem").size();
  size_t type = std::string_view("type").size();
  for (const Volume& it : report.inspection.volumes) {
    device = std::max(device, printable(it.device).size());
    type = std::max(type, printable(it.type).size());
  }
  const auto line = [&](std::string_view a, std::string_view b, std::string_view size,
                        std::string_view in_use, std::string_view free, std::string_view stored) {
    return fmt::format("  {:<{}}  {:<{}}  {:>10}  {:>10}  {:>10}  {:>10}", a, device, b, type, size,
                       in_use, free, stored);
  };
  std::string text =
      palette.bold(line("filesystem", "type", "size", "used", "free", "stored")) + "\n";
  for (size_t i = 0; i < report.inspection.volumes.size(); ++i) {
    const Volume& it = report.inspection.volumes[i];
    const bool known = it.verdict == Verdict::kFree;
    text += line(printable(it.device), printable(it.type), human_size(it.size),
                 known ? human_size(used(it)) : "-", known ? human_size(it.free) : "-",
                 known ? human_size(report.free_data[i]) : "-");
    if (!known) text += "  " + printable(why_not_free(it));
    text += '\n';
  }
  return text;
}

}  // namespace

ordered_json volume_json(const Volume& volume) {
  const bool known = volume.verdict == Verdict::kFree;
  ordered_json json;
  json["device"] = volume.device;
  json["type"] = volume.type;
  json["label"] = volume.label;
  json["uuid"] = volume.uuid;
  json["size"] = volume.size;
  json["verdict"] = to_string(volume.verdict);
  json["why"] = volume.why;
  json["used"] = known ? ordered_json(used(volume)) : ordered_json();
  json["free"] = known ? ordered_json(volume.free) : ordered_json();
  return json;
}

ordered_json free_space_json(const copy::FreeSpace& space) {
  ordered_json json;
  json["free"] = space.ranges->total();
  json["free-stored"] = space.stored;
  json["filesystems"] = ordered_json::array();
  for (const Volume& it : space.inspection.volumes) json["filesystems"].push_back(volume_json(it));
  json["doubts"] = space.inspection.doubts;
  return json;
}

std::string space_report(const SpaceReport& report, const Palette& palette) {
  std::string text;
  if (!report.inspection.volumes.empty())
    text += table(report, palette);
  else if (report.inspection.doubts.empty())
    text += "No filesystem was found.\n";
  for (const std::string& doubt : report.inspection.doubts) text += "  " + printable(doubt) + "\n";
  text += '\n';
  for (const auto& disk : report.disks)
    text += fmt::format("{}: {} disk, {} free, {} of that stored\n", printable(disk.name),
                        human_size(disk.size), human_size(disk.free), human_size(disk.free_data));
  if (report.approximate)
    text += "A running guest changes what is free: the figures are approximate.\n";
  return text;
}

std::string space_report_json(const SpaceReport& report) {
  ordered_json json;
  json["approximate"] = report.approximate;
  json["filesystems"] = ordered_json::array();
  for (size_t i = 0; i < report.inspection.volumes.size(); ++i) {
    ordered_json volume = volume_json(report.inspection.volumes[i]);
    volume["free-stored"] =
        volume["free"].is_null() ? ordered_json() : ordered_json(report.free_data[i]);
    json["filesystems"].push_back(std::move(volume));
  }
  json["doubts"] = report.inspection.doubts;
  json["disks"] = ordered_json::array();
  for (const auto& disk : report.disks)
    json["disks"].push_back({{"filename", disk.name},
                             {"virtual-size", disk.size},
                             {"free", disk.free},
                             {"free-stored", disk.free_data}});
  return json_text(json);
}

}  // namespace vc::tool
