#include "tool/live/live_run.h"

#include <vector>

#include "live/end_of_run.h"
#include "live/live_optimize.h"
#include "tool/report/live_report.h"
#include "tool/terminal/signals.h"
#include "tool/terminal/step_display.h"
#include "tool/text/json_text.h"

namespace vc::tool {

namespace {

using live::LiveDiskReport;

// A disk that is as it was, although the user wanted another one.
bool is_failure(const LiveDiskReport& report) {
  return report.failed ||
         (report.outcome == LiveDiskReport::Outcome::kUndone && !report.error.empty());
}

void measure(const LiveDiskReport& report, Metrics& metrics) {
  using Outcome = LiveDiskReport::Outcome;
  MetricsEntry entry;
  entry.disk = report.disk;
  entry.success = !is_failure(report);
  entry.changed = entry.success && report.outcome == Outcome::kOptimized;
  if (report.before.file.blocks > 0) entry.before = report.before.file.blocks;
  entry.after = entry.changed ? report.after.file.blocks : entry.before;
  entry.seconds = report.elapsed.count();
  metrics.record(std::move(entry));
}

Result<int> show(const Console& console, const std::vector<LiveDiskReport>& reports, bool json,
                 const Cancel& cancel, Metrics& metrics) {
  bool failed = false;
  nlohmann::ordered_json disks = nlohmann::ordered_json::array();
  for (const LiveDiskReport& report : reports) {
    failed |= is_failure(report);
    measure(report, metrics);
    if (json)
      disks.push_back(live_report_json(report));
    else if (is_failure(report))
      console.error(live_error(report));
    else if (!console.manner().quiet)
      RETURN_IF_ERROR(console.print("\n" + live_report(report, console.palette())));
  }
  if (json) RETURN_IF_ERROR(console.print(json_text({{"disks", std::move(disks)}})));
  if (failed && cancel.requested())
    return fail(Error::cancelled().with_context(reports.front().domain));
  return failed ? 1 : 0;
}

}  // namespace

Result<int> run_live(const Console& console, const live::LiveOptions& options, bool json,
                     Metrics& metrics) {
  Cancel cancel;
  const StopSignals signals(cancel);
  StepDisplay display(console, json);
  auto reports = live::optimize_live(options, display, display, cancel);
  display.finish();
  if (!reports) {
    for (const std::string& disk : options.disks) metrics.add(disk);
    return fail(std::move(reports).error());
  }
  return show(console, *reports, json, cancel, metrics);
}

Result<int> complete_live(const Console& console, const std::string& disk,
                          const live::LiveOptions& options, bool json, LiveEnd end,
                          Metrics& metrics) {
  Cancel cancel;
  const StopSignals signals(cancel);
  StepDisplay display(console, json);
  auto report = end == LiveEnd::kForward
                    ? live::resume_live(disk, options, display, display, cancel)
                    : live::undo_live(disk, options, display, display, cancel);
  display.finish();
  if (!report) {
    metrics.add(disk);
    return fail(std::move(report).error());
  }
  return show(console, {std::move(*report)}, json, cancel, metrics);
}

bool is_stopped_live_run(const std::string& disk) {
  return live::has_journal(disk);
}

Result<void> refuse_stopped_live_run(const std::string& disk) {
  return live::check_no_run(disk);
}

}  // namespace vc::tool
