// The interface of a subcommand.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

#include "base/result.h"
#include "tool/metrics/metrics.h"
#include "tool/terminal/console.h"

namespace vc::tool {

inline constexpr int kSuccess = 0;
inline constexpr int kFailure = 1;

class Command {
 public:
  virtual ~Command() = default;

  virtual const char* name() const = 0;
  // Returns a few words for the list of commands.
  virtual const char* summary() const = 0;
  // Returns one or two lines for the command's own help.
  virtual const char* description() const = 0;

  // Adds the options to `app`. They bind to this object, which must outlive `app`.
  virtual void add_options(CLI::App& app) = 0;
  // Checks the parsed options. Throws UsageError if they conflict.
  virtual void check() const = 0;
  // Runs the command. Returns the exit code: 0, or a code that reports the finding (`compare`: the
  // images differ).
  virtual Result<int> run(const Console& console) = 0;
  // Returns the exit code for errors, including command line errors.
  virtual int failure_code() const { return kFailure; }

  // The figures of the run. Each command that can change something adds the option for them, and
  // its disks.
  Metrics& metrics() { return metrics_; }
  const Metrics& metrics() const { return metrics_; }

 private:
  Metrics metrics_;
};

// Returns all commands, in the order of the help.
std::vector<std::unique_ptr<Command>> make_commands();

}  // namespace vc::tool
