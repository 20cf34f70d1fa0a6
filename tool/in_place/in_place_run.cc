#include "tool/in_place/in_place_run.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "tool/report/compact_report.h"
#include "tool/report/in_place_report.h"
#include "tool/terminal/signals.h"
#include "tool/terminal/step_display.h"
#include "tool/text/json_text.h"

namespace vc::tool {

using nlohmann::ordered_json;

namespace {

class InPlaceDisks {
 public:
  InPlaceDisks(const Console& console, optimize::OptimizeOptions options,
               const qcow2::InPlaceOptions& levels, bool json, Metrics& metrics)
      : console_(console),
        options_(std::move(options)),
        levels_(levels),
        json_(json),
        metrics_(metrics) {}

  Result<int> run(const std::vector<std::string>& disks) {
    for (const std::string& disk : disks) metrics_.add(disk);
    report_["disks"] = ordered_json::array();
    std::optional<Error> stopped;
    for (const std::string& disk : disks) {
      auto done = run_one(disk);
      if (done) continue;
      add_error(disk, done.error());
      if (done.error().kind() == Error::Kind::kCancelled) {
        stopped = std::move(done).error();
        break;
      }
      if (disks.size() == 1 && !json_) return fail(std::move(done).error());
      console_.error(done.error().message());
    }
    if (json_) {
      report_["failed"] = failed_;
      RETURN_IF_ERROR(console_.print(json_text(report_)));
    }
    if (stopped) return fail(std::move(*stopped));
    return failed_ == 0 ? 0 : 1;
  }

 private:
  Result<void> run_one(const std::string& disk) {
    options_.disk = disk;
    metrics_.begin(disk);
    StepDisplay display(console_, json_);
    const auto report = optimize::optimize_in_place(options_, levels_, display, display, cancel_);
    display.finish();
    const bool complete = report && !report->stopped;
    metrics_.end(disk, complete, report && has_changed(*report));
    if (!report) {
      if (report.error().kind() != Error::Kind::kCancelled) return fail(report.error());
      return fail(Error::cancelled().with_context(disk + ": unchanged"));
    }
    if (const std::string warning = warning_of_leaks(disk, report->compaction); !warning.empty())
      console_.warning(warning);
    RETURN_IF_ERROR(tell(disk, *report));
    if (complete) return {};
    return fail(Error::cancelled().with_context(
        disk + ": consistent, but not as short as possible: run the command again to go on"));
  }

  static bool has_changed(const optimize::InPlaceReport& report) {
    const qcow2::InPlaceSummary& summary = report.compaction;
    return !report.run.dry_run &&
           (report.discarded > 0 || report.run.trimmed || summary.moved > 0 || summary.leaks > 0 ||
            summary.zeros > 0 || compact_gain(summary) > 0);
  }

  Result<void> tell(const std::string& disk, const optimize::InPlaceReport& report) {
    if (json_) {
      report_["disks"].push_back(in_place_report_json(disk, report));
      return {};
    }
    if (console_.manner().quiet) return {};
    return console_.print("\n" + in_place_report(disk, report));
  }

  // A disk that was stopped has its report already.
  void add_error(const std::string& disk, const Error& error) {
    ++failed_;
    ordered_json& list = report_["disks"];
    if (!list.empty() && list.back()["disk"] == disk)
      list.back()["error"] = error.message();
    else
      list.push_back({{"disk", disk}, {"error", error.message()}});
  }

  const Console& console_;
  optimize::OptimizeOptions options_;
  const qcow2::InPlaceOptions& levels_;
  const bool json_;
  Metrics& metrics_;
  Cancel cancel_;
  const StopSignals signals_{cancel_};
  ordered_json report_;
  size_t failed_ = 0;
};

}  // namespace

Result<int> run_in_place(const Console& console, const std::vector<std::string>& disks,
                         optimize::OptimizeOptions options, const qcow2::InPlaceOptions& levels,
                         bool json, Metrics& metrics) {
  return InPlaceDisks(console, std::move(options), levels, json, metrics).run(disks);
}

}  // namespace vc::tool
