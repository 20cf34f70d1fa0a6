#include "tool/nightly/nightly_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/printable.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using nlohmann::ordered_json;
using Outcome = NightlyEntry::Outcome;
using Why = NightlyEntry::Why;

namespace {

std::string name_of(const NightlyEntry& it) {
  std::string text;
  for (const std::string& part : {it.domain, it.target, it.disk})
    if (!part.empty()) text += (text.empty() ? "" : ": ") + printable(part);
  return text;
}

std::string line_of(const NightlyEntry& it, bool dry_run, const Palette& palette) {
  const std::string outcome = to_string(it.outcome);
  std::string text = name_of(it) + "\n  ";
  text += it.outcome == Outcome::kSkipped ? outcome : palette.bold(outcome);
  if (!it.text.empty()) text += ": " + printable(it.text);
  text += "\n";
  if (!it.backup.empty()) text += "  the old disk is " + printable(it.backup) + "\n";
  if (!it.removed_backup.empty())
    text += fmt::format("  {} the old disk {}\n", dry_run ? "would remove" : "removed",
                        printable(it.removed_backup));
  return text;
}

std::string sum_of(const NightlyReport& report) {
  uint64_t saved = 0;
  for (const NightlyEntry& it : report.disks)
    if (it.outcome == Outcome::kOptimized || it.outcome == Outcome::kExpected) saved += it.saved();
  std::string text =
      fmt::format("{} of {} disks {}optimized",
                  report.count(report.dry_run ? Outcome::kExpected : Outcome::kOptimized),
                  report.disks.size(), report.dry_run ? "would be " : "");
  for (const Outcome it : {Outcome::kSkipped, Outcome::kStopped, Outcome::kFailed})
    if (const size_t count = report.count(it); count > 0)
      text += fmt::format(", {} {}", count, to_string(it));
  if (saved > 0)
    text += fmt::format("; {} {}saved", human_size(saved), report.dry_run ? "would be " : "");
  return text + "\n";
}

}  // namespace

size_t NightlyReport::count(Outcome outcome) const {
  return static_cast<size_t>(std::count_if(
      disks.begin(), disks.end(), [&](const NightlyEntry& it) { return it.outcome == outcome; }));
}

bool NightlyReport::failed() const {
  return !errors.empty() || count(Outcome::kFailed) > 0;
}

const char* to_string(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOptimized:
      return "optimized";
    case Outcome::kExpected:
      return "expected";
    case Outcome::kStopped:
      return "stopped";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kSkipped:
      break;
  }
  return "skipped";
}

const char* to_string(Why why) {
  switch (why) {
    case Why::kStopped:
      return "stopped";
    case Why::kWindow:
      return "window";
    case Why::kRefused:
      return "refused";
    case Why::kRuns:
      return "runs";
    case Why::kInUse:
      return "in-use";
    case Why::kNotDue:
      return "not-due";
    case Why::kUnchanged:
      return "unchanged";
    case Why::kBackup:
      return "backup";
    case Why::kOverlay:
      return "overlay";
    case Why::kBase:
      return "base";
    case Why::kGain:
      return "gain";
    case Why::kTwice:
      return "twice";
    case Why::kNone:
      break;
  }
  return "none";
}

std::string nightly_report(const NightlyReport& report, const Palette& palette) {
  std::string text;
  for (const NightlyEntry& it : report.disks) text += line_of(it, report.dry_run, palette);
  return text + (report.disks.empty() ? "" : "\n") + sum_of(report);
}

ordered_json nightly_report_json(const NightlyReport& report) {
  ordered_json json;
  json["dry-run"] = report.dry_run;
  json["begin"] = report.begin;
  json["end"] = report.end;
  json["disks"] = ordered_json::array();
  uint64_t saved = 0;
  for (const NightlyEntry& it : report.disks) {
    ordered_json disk;
    if (!it.domain.empty()) disk["domain"] = it.domain;
    if (!it.target.empty()) disk["target"] = it.target;
    if (!it.disk.empty()) disk["disk"] = it.disk;
    disk["outcome"] = to_string(it.outcome);
    if (it.why != Why::kNone) disk["why"] = to_string(it.why);
    disk["text"] = it.text;
    if (it.before) disk["before"] = *it.before;
    if (it.after) disk["after"] = *it.after;
    if (!it.backup.empty()) disk["backup"] = it.backup;
    if (!it.removed_backup.empty()) disk["removed-backup"] = it.removed_backup;
    disk["seconds"] = it.seconds;
    if (it.last_success > 0) disk["last-success"] = it.last_success;
    if (!it.last_outcome.empty()) disk["last-outcome"] = it.last_outcome;
    if (!it.details.is_null()) disk["report"] = it.details;
    json["disks"].push_back(std::move(disk));
    if (it.outcome == Outcome::kOptimized) saved += it.saved();
  }
  json["errors"] = report.errors;
  for (const Outcome it : {Outcome::kOptimized, Outcome::kExpected, Outcome::kSkipped,
                           Outcome::kStopped, Outcome::kFailed})
    json[to_string(it)] = report.count(it);
  json["saved"] = saved;
  return json;
}

}  // namespace vc::tool
