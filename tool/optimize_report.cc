#include "tool/optimize_report.h"

#include <fmt/format.h>

#include "qcow2/printable.h"
#include "tool/size_text.h"
#include "tool/trim_report.h"

namespace tool {

using nlohmann::ordered_json;
using optimize::DiskFigures;
using optimize::OptimizeReport;

namespace {

std::string row(const char* what, const std::string& before, const std::string& after) {
  return fmt::format("  {:<12}{:>12}{:>12}\n", what, before, after);
}

std::string fragmented(const DiskFigures& figures) {
  if (figures.allocated == 0) return "0.0%";
  return fmt::format("{:.1f}%", 100.0 * static_cast<double>(figures.fragmented) /
                                    static_cast<double>(figures.allocated));
}

ordered_json figures_json(const DiskFigures& figures, bool clusters) {
  ordered_json json;
  json["length"] = figures.length;
  json["actual-size"] = figures.on_disk;
  if (!clusters) return json;
  json["total-clusters"] = figures.clusters;
  json["allocated-clusters"] = figures.allocated;
  json["compressed-clusters"] = figures.compressed;
  json["fragmented-clusters"] = figures.fragmented;
  json["leaks"] = figures.leaks;
  return json;
}

}  // namespace

std::string optimize_report(const std::string& disk, const OptimizeReport& report,
                            const Palette& palette) {
  const DiskFigures& before = report.before;
  const DiskFigures& after = report.after;
  std::string text =
      fmt::format("{} -> {}\n", qcow2::printable(disk), qcow2::printable(report.result));
  const bool smaller = before.on_disk > after.on_disk;
  const uint64_t difference =
      smaller ? before.on_disk - after.on_disk : after.on_disk - before.on_disk;
  text += palette.bold(fmt::format("{} {} ({:.1f}%) on the disk", smaller ? "Saved" : "Takes",
                                   human_size(difference),
                                   before.on_disk == 0 ? 0.0
                                                       : 100.0 * static_cast<double>(difference) /
                                                             static_cast<double>(before.on_disk))) +
          (smaller ? "\n\n" : " more\n\n");
  text += row("", "before", "after");
  text += row("on disk", human_size(before.on_disk), human_size(after.on_disk));
  text += row("length", human_size(before.length), human_size(after.length));
  if (report.format == qcow2::Format::kQcow2 && report.result_format == report.format) {
    text +=
        row("clusters", fmt::format("{}", before.allocated), fmt::format("{}", after.allocated));
    text += row("compressed", fmt::format("{}", before.compressed),
                fmt::format("{}", after.compressed));
    // Of compressed clusters QEMU's measure says nothing: each of them counts.
    if (before.compressed + after.compressed == 0)
      text += row("fragmented", fragmented(before), fragmented(after));
    if (before.leaks > 0)
      text += row("leaked", fmt::format("{}", before.leaks), fmt::format("{}", after.leaks));
  }
  text += fmt::format("\n  {} disk in {:.1f} s:", human_size(report.virtual_size),
                      report.elapsed.count());
  for (size_t i = 0; i < report.steps.size(); ++i)
    text += fmt::format("{} {} {:.1f}", i == 0 ? "" : ",", report.steps[i].name,
                        report.steps[i].elapsed.count());
  text += "\n";
  if (!report.backup.empty())
    text += fmt::format("  the old disk is {}\n", qcow2::printable(report.backup));
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
  json["before"] = figures_json(report.before, has_clusters(report.format));
  json["after"] = figures_json(report.after, has_clusters(report.result_format));
  if (report.trimmed) json["trim"] = ordered_json::parse(trim_report_json(*report.trimmed));
  json["steps"] = ordered_json::array();
  for (const auto& step : report.steps)
    json["steps"].push_back({{"name", step.name}, {"seconds", step.elapsed.count()}});
  json["seconds"] = report.elapsed.count();
  return json;
}

}  // namespace tool
