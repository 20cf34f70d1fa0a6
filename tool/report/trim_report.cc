#include "tool/report/trim_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/printable.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

using appliance::TrimmedDisk;
using appliance::TrimmedSpace;
using appliance::TrimReport;
using nlohmann::ordered_json;
using Outcome = TrimmedSpace::Outcome;

std::string size_or_dash(const std::optional<uint64_t>& size) {
  return size ? human_size(*size) : "-";
}

const char* to_string(Outcome outcome) {
  switch (outcome) {
    case Outcome::kTrimmed:
      return "trimmed";
    case Outcome::kZeroFilled:
      return "zero-filled";
    case Outcome::kDiscarded:
      return "discarded";
    case Outcome::kLeftAlone:
      return "left-alone";
    case Outcome::kFailed:
      break;
  }
  return "failed";
}

// Returns the last column: whatever the others do not show.
std::string remark(const TrimmedSpace& space, bool dry_run) {
  switch (space.outcome) {
    case Outcome::kZeroFilled:
      return dry_run ? "at most: it would be filled with zeros" : "filled with zeros";
    case Outcome::kLeftAlone:
      return "left alone: " + space.why;
    case Outcome::kFailed:
      return "failed: " + space.why;
    case Outcome::kTrimmed:
    case Outcome::kDiscarded:
      break;
  }
  return "";
}

std::string table(const TrimReport& report, const Palette& palette) {
  size_t device = std::string_view("filesystem").size();
  size_t type = std::string_view("type").size();
  for (const TrimmedSpace& it : report.spaces) {
    device = std::max(device, printable(it.device).size());
    type = std::max(type, printable(it.type).size());
  }
  const auto line = [&](std::string_view a, std::string_view b, std::string_view size,
                        std::string_view used, std::string_view freed) {
    return fmt::format("  {:<{}}  {:<{}} {:>10} {:>10} {:>10}", a, device, b, type, size, used,
                       freed);
  };
  std::string text = palette.bold(line("filesystem", "type", "size", "used",
                                       report.dry_run ? "to free" : "freed")) +
                     "\n";
  for (const TrimmedSpace& it : report.spaces) {
    const bool done = it.outcome != Outcome::kLeftAlone && it.outcome != Outcome::kFailed;
    text += line(printable(it.device), printable(it.type), human_size(it.size),
                 size_or_dash(it.used), done ? size_or_dash(it.freed) : "-");
    if (const std::string why = remark(it, report.dry_run); !why.empty())
      text += "  " + printable(why);
    text += '\n';
  }
  return text;
}

std::string change(uint64_t before, uint64_t after) {
  return fmt::format("{:>10} -> {}", human_size(before), human_size(after));
}

std::string disk_lines(const TrimmedDisk& disk, bool dry_run) {
  std::string text = fmt::format("{}: {} disk\n", printable(disk.name), human_size(disk.size));
  if (disk.data_before && disk.data_after)
    text += fmt::format("  {:<10}{}\n", dry_run ? "data, then" : "data",
                        change(*disk.data_before, *disk.data_after));
  if (disk.before && disk.after && !dry_run) {
    text += fmt::format("  {:<10}{}\n", "length", change(disk.before->length, disk.after->length));
    text += fmt::format("  {:<10}{}\n", "on disk", change(disk.before->blocks, disk.after->blocks));
  }
  return text;
}

ordered_json number_or_null(const std::optional<uint64_t>& number) {
  return number ? ordered_json(*number) : ordered_json();
}

ordered_json size_or_null(const std::optional<FileSize>& size) {
  if (!size) return {};
  return {{"length", size->length}, {"blocks", size->blocks}};
}

}  // namespace

std::string steps_text(const TrimReport& report) {
  std::string text;
  for (const auto& it : report.steps)
    text += fmt::format("{}{} {:.1f}", text.empty() ? "" : ", ", it.name, it.elapsed.count());
  return text;
}

std::string trim_report(const TrimReport& report, const Palette& palette) {
  std::string text;
  if (report.blank)
    text += "The disk has no data, so there is nothing to trim.\n";
  else if (!report.spaces.empty())
    text += table(report, palette);
  if (const std::string why = report.why_nothing(); !why.empty())
    text += palette.bold("Nothing was trimmed") + ": " + printable(why) + "\n";
  if (!report.dropped.empty()) text += '\n';
  for (const auto& it : report.dropped)
    text += fmt::format("  {} {} on {}, {}\n", report.dry_run ? "would empty" : "emptied",
                        printable(it.path), printable(it.device), human_size(it.bytes));
  for (const TrimmedDisk& disk : report.disks) text += "\n" + disk_lines(disk, report.dry_run);
  text += fmt::format("  in {:.1f} s", report.elapsed.count());
  if (!report.steps.empty()) text += ": " + steps_text(report);
  text += "\n";
  if (report.dry_run) text += "Nothing was written.\n";
  return text;
}

std::string trim_report_json(const TrimReport& report) {
  ordered_json json;
  json["dry-run"] = report.dry_run;
  json["metadata"] = report.from_metadata;
  json["complete"] = report.complete();
  if (const std::string why = report.why_nothing(); !why.empty()) json["nothing"] = why;
  json["filesystems"] = ordered_json::array();
  for (const TrimmedSpace& it : report.spaces) {
    ordered_json space;
    space["device"] = it.device;
    space["type"] = it.type;
    space["label"] = it.label;
    space["uuid"] = it.uuid;
    space["size"] = it.size;
    space["used"] = number_or_null(it.used);
    space["freed"] = number_or_null(it.freed);
    space["outcome"] = to_string(it.outcome);
    space["why"] = it.why;
    space["seconds"] = it.elapsed.count();
    json["filesystems"].push_back(std::move(space));
  }
  json["dropped"] = ordered_json::array();
  for (const auto& it : report.dropped)
    json["dropped"].push_back({{"device", it.device}, {"path", it.path}, {"size", it.bytes}});
  json["disks"] = ordered_json::array();
  for (const TrimmedDisk& it : report.disks) {
    ordered_json disk;
    disk["filename"] = it.name;
    disk["virtual-size"] = it.size;
    disk["partition-table"] = to_string(it.table.kind);
    disk["sector-size"] = it.table.sector_size;
    disk["data-before"] = number_or_null(it.data_before);
    disk["data-after"] = number_or_null(it.data_after);
    disk["before"] = size_or_null(it.before);
    disk["after"] = size_or_null(it.after);
    json["disks"].push_back(std::move(disk));
  }
  json["emulated"] = report.emulated;
  json["steps"] = ordered_json::array();
  for (const auto& it : report.steps)
    json["steps"].push_back({{"name", it.name}, {"seconds", it.elapsed.count()}});
  json["seconds"] = report.elapsed.count();
  return json_text(json);
}

}  // namespace vc::tool
