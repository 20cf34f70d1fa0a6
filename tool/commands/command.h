// What main knows of a subcommand.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

#include "base/result.h"
#include "tool/terminal/console.h"

namespace tool {

inline constexpr int kSuccess = 0;
inline constexpr int kFailure = 1;

class Command {
 public:
  virtual ~Command() = default;

  virtual const char* name() const = 0;
  // For the list of commands: a few words.
  virtual const char* summary() const = 0;
  // For its own help: one or two lines.
  virtual const char* description() const = 0;

  // The options bind to this object, which must outlive `app`.
  virtual void add_options(CLI::App& app) = 0;
  // After parsing: throws UsageError when the options do not go together.
  virtual void check() const = 0;
  // The exit code of what went to its end: 0, or one that tells what was found (`compare`: the
  // images differ).
  virtual qcow2::Result<int> run(const Console& console) = 0;
  // The exit code after an error, and after a command line that is wrong.
  virtual int failure_code() const { return kFailure; }
};

// All of them, in the order of the help.
std::vector<std::unique_ptr<Command>> make_commands();

}  // namespace tool
