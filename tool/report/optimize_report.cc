#include "tool/report/optimize_report.h"

#include <fmt/format.h>

#include "base/printable.h"
#include "tool/report/trim_report.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using nlohmann::ordered_json;
using optimize::DiskFigures;
using optimize::FreeSpacePlan;
using optimize::OptimizeReport;
using optimize::PlannedVolume;

namespace {

std::string row(const char* what, const std::string& before, const std::string& after) {
  return fmt::format("  {:<12} {:>11} {:>11}\n", what, before, after);
}

std::string fragmented(const DiskFigures& figures) {
  if (figures.allocated == 0) return "0.0%";
  return fmt::format("{:.1f}%", 100.0 * static_cast<double>(figures.fragmented) /
                                    static_cast<double>(figures.allocated));
}

ordered_json figures_json(const DiskFigures& figures, bool clusters) {
  ordered_json json;
  json["length"] = figures.file.length;
  json["actual-size"] = figures.file.blocks;
  if (!clusters) return json;
  json["total-clusters"] = figures.clusters;
  json["allocated-clusters"] = figures.allocated;
  json["compressed-clusters"] = figures.compressed;
  json["fragmented-clusters"] = figures.fragmented;
  json["leaks"] = figures.leaks;
  return json;
}

}  // namespace

namespace {

double percent_of(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

// A smaller difference is not reported if it is also below one per cent, as in the report of a
// copy.
constexpr uint64_t kNoticeable = 16 << 20;

// Formats "Saved 671 MiB (68.2%) on the disk".
std::string headline(const OptimizeReport& report) {
  const uint64_t before = report.before.file.blocks;
  const uint64_t after = report.after.file.blocks;
  const bool smaller = before > after;
  const uint64_t difference = smaller ? before - after : after - before;
  const double percent = percent_of(difference, before);
  if (before == after || (before > 0 && percent < 1 && difference < kNoticeable))
    return "About as much on the disk as before";
  return fmt::format("{} {} ({:.1f}%) {}on the disk", smaller ? "Saved" : "Takes",
                     human_size(difference), percent, smaller ? "" : "more ");
}

std::string forecast(const optimize::Gain& gain) {
  const uint64_t saved = gain.saved();
  if (saved == 0) return "a fresh image would save nothing on the disk";
  return fmt::format("a fresh image would save about {} ({:.1f}%) on the disk", human_size(saved),
                     gain.percent());
}

std::string time_line(const OptimizeReport& report) {
  std::string text = fmt::format("\n  {} disk in {:.1f} s:", human_size(report.virtual_size),
                                 report.elapsed.count());
  for (size_t i = 0; i < report.steps.size(); ++i)
    text += fmt::format("{} {} {:.1f}", i == 0 ? "" : ",", report.steps[i].name,
                        report.steps[i].elapsed.count());
  text += "\n";
  if (report.trimmed && !report.trimmed->steps.empty())
    text += fmt::format("  the appliance: {}\n", steps_text(*report.trimmed));
  return text;
}

// Formats the report of a run that changed nothing.
std::string unchanged_report(const std::string& disk, const OptimizeReport& report,
                             const Palette& palette) {
  const optimize::Gain& gain = *report.gain;
  std::string text = printable(disk) + "\n" +
                     palette.bold(report.compact ? "Already compact: " : "") + forecast(gain) +
                     "\n\n";
  text += row("", "now", "afresh");
  text += row("on disk", human_size(gain.before), human_size(gain.expected));
  text += fmt::format("  between {} and {}", human_size(gain.low), human_size(gain.high));
  if (report.format == qcow2::Format::kQcow2)
    text += fmt::format("; {:.1f}% of the clusters are far from the cluster before them",
                        gain.scattered);
  text += "\n" + time_line(report);
  text += "Nothing was changed";
  if (report.compact && !report.dry_run) text += ": use --force to rewrite it anyway";
  return text + ".\n";
}

ordered_json gain_json(const optimize::Gain& gain) {
  return {{"before", gain.before}, {"expected", gain.expected},
          {"low", gain.low},       {"high", gain.high},
          {"saved", gain.saved()}, {"scattered-percent", gain.scattered}};
}

const char* to_string(PlannedVolume::Way way) {
  switch (way) {
    case PlannedVolume::Way::kMetadata:
      return "metadata";
    case PlannedVolume::Way::kAppliance:
      return "appliance";
    case PlannedVolume::Way::kWhole:
      break;
  }
  return "whole";
}

}  // namespace

ordered_json free_space_json(const FreeSpacePlan& plan) {
  ordered_json json;
  json["trim"] = to_string(plan.trimming);
  json["appliance"] = plan.boots;
  json["why"] = plan.why;
  if (const std::string why = plan.why_nothing(); !why.empty()) json["nothing"] = why;
  json["filesystems"] = ordered_json::array();
  for (const PlannedVolume& it : plan.volumes)
    json["filesystems"].push_back({{"device", it.device},
                                   {"type", it.type},
                                   {"label", it.label},
                                   {"uuid", it.uuid},
                                   {"size", it.size},
                                   {"way", to_string(it.way)},
                                   {"why", it.why},
                                   {"free", it.free ? ordered_json(*it.free) : ordered_json()},
                                   {"stored", it.stored}});
  json["dropped"] = ordered_json::array();
  for (const auto& it : plan.dropped)
    json["dropped"].push_back({{"device", it.device}, {"path", it.path}, {"size", it.bytes}});
  json["not-dropped"] = plan.not_dropped;
  return json;
}

std::string optimize_report(const std::string& disk, const OptimizeReport& report,
                            const Palette& palette) {
  if (report.dry_run || report.compact) return unchanged_report(disk, report, palette);
  const DiskFigures& before = report.before;
  const DiskFigures& after = report.after;
  std::string text = fmt::format("{} -> {}\n", printable(disk), printable(report.result));
  text += palette.bold(headline(report)) + "\n\n";
  text += row("", "before", "after");
  text += row("on disk", human_size(before.file.blocks), human_size(after.file.blocks));
  text += row("length", human_size(before.file.length), human_size(after.file.length));
  if (report.format == qcow2::Format::kQcow2 && report.result_format == report.format) {
    text +=
        row("clusters", fmt::format("{}", before.allocated), fmt::format("{}", after.allocated));
    text += row("compressed", fmt::format("{}", before.compressed),
                fmt::format("{}", after.compressed));
    // QEMU's figure for fragmentation counts every compressed cluster, so it is useless for them.
    if (before.compressed + after.compressed == 0)
      text += row("fragmented", fragmented(before), fragmented(after));
    if (before.leaks > 0)
      text += row("leaked", fmt::format("{}", before.leaks), fmt::format("{}", after.leaks));
    if (report.copied.snapshots > 0)
      text += row("snapshots", "", fmt::format("{}", report.copied.snapshots));
  }
  text += time_line(report);
  if (!report.backup.empty())
    text += fmt::format("  the old disk is {}\n", printable(report.backup));
  return text;
}

ordered_json optimize_report_json(const std::string& disk, const OptimizeReport& report) {
  const auto has_clusters = [](qcow2::Format format) { return format == qcow2::Format::kQcow2; };
  ordered_json json;
  json["disk"] = disk;
  json["result"] = report.result;
  if (!report.backup.empty()) json["backup"] = report.backup;
  json["format"] = qcow2::to_string(report.result_format);
  json["virtual-size"] = report.virtual_size;
  if (report.dry_run) json["dry-run"] = true;
  json["already-compact"] = report.compact;
  if (report.gain) json["estimate"] = gain_json(*report.gain);
  json["before"] = figures_json(report.before, has_clusters(report.format));
  if (!report.dry_run)
    json["after"] = figures_json(report.after, has_clusters(report.result_format));
  if (report.copied.snapshots > 0) json["snapshots"] = report.copied.snapshots;
  if (report.plan.trimming != optimize::Trimming::kNone)
    json["free-space"] = free_space_json(report.plan);
  if (report.trimmed) json["trim"] = ordered_json::parse(trim_report_json(*report.trimmed));
  json["steps"] = ordered_json::array();
  for (const auto& step : report.steps)
    json["steps"].push_back({{"name", step.name}, {"seconds", step.elapsed.count()}});
  json["seconds"] = report.elapsed.count();
  return json;
}

}  // namespace vc::tool
