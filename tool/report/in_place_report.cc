#include "tool/report/in_place_report.h"

#include <fmt/format.h>

#include "tool/report/compact_report.h"
#include "tool/report/optimize_report.h"
#include "tool/report/trim_report.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using nlohmann::ordered_json;

namespace {

// Returns the data that the appliance has freed, in bytes.
uint64_t freed(const appliance::TrimReport& report) {
  uint64_t sum = 0;
  for (const auto& it : report.disks)
    if (it.data_before && it.data_after && *it.data_before > *it.data_after)
      sum += *it.data_before - *it.data_after;
  return sum;
}

std::string trim_lines(const optimize::InPlaceReport& report) {
  const optimize::OptimizeReport& run = report.run;
  if (run.plan.trimming == optimize::Trimming::kNone) return "";
  std::string text;
  if (report.discarded > 0 || !run.plan.boots)
    text += fmt::format("  {:<12} {:>9}  by the metadata of the filesystems\n",
                        run.dry_run ? "to discard" : "discarded", human_size(report.discarded));
  if (run.trimmed)
    text += fmt::format("  {:<12} {:>9}  in the appliance: {}\n", "trimmed",
                        human_size(freed(*run.trimmed)), steps_text(*run.trimmed));
  if (run.dry_run && run.plan.boots)
    text += "  What only the appliance can free is not included.\n";
  return text;
}

}  // namespace

std::string in_place_report(const std::string& disk, const optimize::InPlaceReport& report) {
  return compact_report(disk, report.compaction, report.run.dry_run, trim_lines(report));
}

ordered_json in_place_report_json(const std::string& disk, const optimize::InPlaceReport& report) {
  ordered_json json;
  json["disk"] = disk;
  json["in-place"] = true;
  ordered_json compaction = compact_report_json(disk, report.compaction, report.run.dry_run);
  const ordered_json seconds = compaction["seconds"];
  compaction.erase("filename");
  compaction.erase("seconds");
  json.update(compaction);
  if (report.run.plan.trimming != optimize::Trimming::kNone) {
    json["discarded"] = report.discarded;
    json["free-space"] = free_space_json(report.run.plan);
  }
  if (report.run.trimmed) json["trim"] = ordered_json::parse(trim_report_json(*report.run.trimmed));
  json["steps"] = ordered_json::array();
  for (const auto& step : report.run.steps)
    json["steps"].push_back({{"name", step.name}, {"seconds", step.elapsed.count()}});
  json["seconds"] = seconds;
  return json;
}

}  // namespace vc::tool
