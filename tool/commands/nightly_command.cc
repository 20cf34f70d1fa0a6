#include "tool/commands/nightly_command.h"

#include <nlohmann/json.hpp>

#include "tool/options/arguments.h"
#include "tool/terminal/signals.h"
#include "tool/text/json_text.h"

namespace vc::tool {

const char* NightlyCommand::description() const {
  return "Optimize the disks that a policy names, one after the other, with one report:\nthose "
         "that are due, that have changed, and that would gain enough.";
}

void NightlyCommand::add_options(CLI::App& app) {
  app.add_option("--policy", policy_, "the policy, in TOML: see virt-compact-nightly(1)")
      ->type_name("FILE")
      ->take_last();
  add_switch(app, "--check", check_only_, "only check the policy");
  add_switch(app, "--dry-run", options_.dry_run, "change nothing; say what would be done");
  add_switch(app, "--now", options_.now, "regardless of the time window and of every_days");
  add_output_option(app, options_.json, "the report: human (the default) or json");
  metrics().add_option(app);
}

void NightlyCommand::check() const {
  if (policy_.empty()) throw UsageError("--policy is missing");
  if (check_only_ && (options_.dry_run || options_.now || options_.json))
    throw UsageError("--check runs nothing: omit --dry-run, --now and --output");
  if (check_only_ && !metrics().file().empty())
    throw UsageError("--check runs nothing: omit --metrics");
}

Result<int> NightlyCommand::run(const Console& console) {
  ASSIGN_OR_RETURN(const Policy policy, load_policy(policy_));
  if (check_only_) return kSuccess;
  ASSIGN_OR_RETURN(const NightlyReport report, run_night(policy, options_, console, metrics()));
  if (options_.json)
    RETURN_IF_ERROR(console.print(json_text(nightly_report_json(report))));
  else if (!console.manner().quiet)
    RETURN_IF_ERROR(console.print("\n" + nightly_report(report, console.palette())));
  if (stop_signal() != 0) return fail(Error::cancelled().with_context("nightly"));
  return report.failed() ? kFailure : kSuccess;
}

}  // namespace vc::tool
