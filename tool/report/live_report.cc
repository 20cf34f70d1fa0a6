#include "tool/report/live_report.h"

#include <fmt/format.h>

#include "base/printable.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using live::LiveDiskReport;
using live::Seconds;
using nlohmann::ordered_json;
using Outcome = LiveDiskReport::Outcome;

namespace {

const char* to_string(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOptimized:
      return "optimized";
    case Outcome::kCompact:
      return "compact";
    case Outcome::kUndone:
      return "undone";
    case Outcome::kChecked:
      break;
  }
  return "checked";
}

std::string headline(const LiveDiskReport& report) {
  switch (report.outcome) {
    case Outcome::kOptimized:
      return fmt::format("{} -> {} on the disk; the guest runs on the fresh image",
                         human_size(report.before.file.blocks),
                         human_size(report.after.file.blocks));
    case Outcome::kCompact:
      return "Already compact: the guest runs on its disk as before; use --force to rewrite it "
             "anyway";
    case Outcome::kUndone:
      return "The disk is as it was before the run";
    case Outcome::kChecked:
      break;
  }
  return fmt::format("Can be optimized; {} on the disk now. Nothing was changed.",
                     human_size(report.before.file.blocks));
}

std::string milliseconds(Seconds time) {
  return fmt::format("{:.1f} ms", time.count() * 1000);
}

std::string waits_line(const char* what, const std::optional<Seconds>& before,
                       const std::optional<Seconds>& during) {
  if (!before && !during) return "";
  return fmt::format("  mean wait of a {}: {} before, {} during the run\n", what,
                     before ? milliseconds(*before) : "none",
                     during ? milliseconds(*during) : "none");
}

ordered_json seconds_json(const std::optional<Seconds>& time) {
  if (!time) return nullptr;
  return time->count();
}

ordered_json sizes_json(const optimize::DiskFigures& figures) {
  return {{"length", figures.file.length}, {"actual-size", figures.file.blocks}};
}

}  // namespace

std::string live_report(const LiveDiskReport& report, const Palette& palette) {
  std::string text = fmt::format("{}: {}: {}\n{}\n", printable(report.domain), report.target,
                                 printable(report.disk), palette.bold(headline(report)));
  if (report.outcome == Outcome::kChecked) return text;
  if (report.outcome == Outcome::kOptimized && !report.backup.empty())
    text += fmt::format("  the old disk is {}\n", printable(report.backup));
  if (!report.node.empty())
    text += fmt::format(
        "  the command that starts the guest stays as it is; until QEMU is started again, its node "
        "of the disk is {}\n",
        printable(report.node));
  if (report.waits.pauses > 0)
    text += fmt::format("  the guest was paused {} times, for {} at most\n", report.waits.pauses,
                        milliseconds(report.waits.longest_pause));
  text += waits_line("write", report.waits.write_before, report.waits.write_during);
  text += waits_line("flush", report.waits.flush_before, report.waits.flush_during);
  text += fmt::format("  {:.1f} s:", report.elapsed.count());
  for (size_t i = 0; i < report.steps.size(); ++i)
    text += fmt::format("{} {} {:.1f}", i == 0 ? "" : ",", report.steps[i].name,
                        report.steps[i].elapsed.count());
  return text + "\n";
}

std::string live_error(const LiveDiskReport& report) {
  const std::string where =
      report.disk.empty() ? report.domain : report.domain + ": " + report.disk;
  if (report.failed) return where + ": " + report.error;
  return fmt::format("{}: {}: the guest runs on its disk as before", where, report.error);
}

ordered_json live_report_json(const LiveDiskReport& report) {
  ordered_json json;
  json["domain"] = report.domain;
  json["target"] = report.target;
  json["disk"] = report.disk;
  if (!report.backup.empty()) json["backup"] = report.backup;
  if (!report.node.empty()) json["node"] = report.node;
  json["outcome"] = report.failed ? "stopped" : to_string(report.outcome);
  if (!report.error.empty()) json["error"] = report.error;
  json["before"] = sizes_json(report.before);
  if (report.outcome == Outcome::kOptimized) json["after"] = sizes_json(report.after);
  if (report.gain) json["expected"] = report.gain->expected;
  const live::Waits& waits = report.waits;
  json["pauses"] = waits.pauses;
  json["longest-pause"] = waits.longest_pause.count();
  json["write-wait-before"] = seconds_json(waits.write_before);
  json["write-wait-during"] = seconds_json(waits.write_during);
  json["flush-wait-before"] = seconds_json(waits.flush_before);
  json["flush-wait-during"] = seconds_json(waits.flush_during);
  json["steps"] = ordered_json::array();
  for (const LiveDiskReport::Step& step : report.steps)
    json["steps"].push_back({{"name", step.name}, {"seconds", step.elapsed.count()}});
  json["seconds"] = report.elapsed.count();
  return json;
}

}  // namespace vc::tool
