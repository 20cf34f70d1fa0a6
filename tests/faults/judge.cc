#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "tests/catch.h"
#include "tests/faults/scenarios.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::faults {

namespace {

// Returns the names that may be in the folder.
std::vector<std::string> allowed_names(const Scenario& scenario, const std::string& prepared) {
  std::vector<std::string> names = support::list_directory(prepared);
  names.insert(names.end(), scenario.may_appear.begin(), scenario.may_appear.end());
  return names;
}

// Returns the names that must not be there.
std::vector<std::string> left_behind(const Scenario& scenario, const std::string& folder,
                                     const std::string& prepared) {
  const auto allowed = allowed_names(scenario, prepared);
  auto names = support::list_directory(folder);
  std::erase_if(names, [&](const std::string& name) {
    return std::find(allowed.begin(), allowed.end(), name) != allowed.end();
  });
  return names;
}

bool has_one_of(const std::string& text, const std::vector<std::string>& words) {
  return std::any_of(words.begin(), words.end(),
                     [&](const std::string& word) { return text.find(word) != std::string::npos; });
}

void judge_files(const Scenario& scenario, const std::string& folder, const std::string& prepared) {
  CHECK(left_behind(scenario, folder, prepared) == std::vector<std::string>{});
  for (const std::string& name : scenario.untouched)
    CHECK_FALSE(support::first_difference(folder + "/" + name, prepared + "/" + name).has_value());
  CHECK(scenario.complaint(folder) == "");
}

}  // namespace

void judge(const Scenario& scenario, const support::Outcome& outcome, const std::string& folder,
           const std::string& prepared, const Fault& fault, bool failed) {
  const bool told = outcome.err.find("error") != std::string::npos ||
                    outcome.err.find("ERROR") != std::string::npos;
  const bool served = scenario.command.front() == "nbdkit";
  CHECK(outcome.signal == 0);
  CHECK_FALSE(outcome.timed_out);
  // An interrupted call is repeated.
  if (!failed || fault.errnum == EINTR) CHECK(outcome.ok());
  // A failed flush is reported to the client, or in the log after the client's last request.
  if (failed && fault.kind == "sync" && fault.errnum != EINTR) CHECK((!outcome.ok() || told));
  judge_files(scenario, folder, prepared);
  const bool effect = scenario.has_taken_effect(folder);
  if (outcome.ok()) {
    CHECK(effect);
    return;
  }
  CHECK(told);
  if (served) return;
  // Other exit codes are those of `check` for its findings.
  auto names = allowed_names(scenario, prepared);
  names.push_back(folder);
  if (outcome.exit_code == 1) CHECK(has_one_of(outcome.err, names));
  // After an error, a user assumes that nothing has changed, and tries again. So the error must say
  // if the command took effect.
  if (effect) CHECK(has_one_of(outcome.err, scenario.states));
  support::RunOptions how;
  how.directory = folder;
  const auto again = support::run(scenario.again.empty() ? scenario.command : scenario.again, how);
  INFO(again.describe());
  CHECK(scenario.has_taken_effect(folder));
  judge_files(scenario, folder, prepared);
}

}  // namespace vc::faults
