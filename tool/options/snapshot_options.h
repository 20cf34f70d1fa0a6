// The options of commands that carry internal snapshots into a new image.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "copy/states/snapshot_choice.h"

namespace vc::tool {

class SnapshotOptions {
 public:
  // Add --with-snapshots, and --drop-snapshots[=NAME,...].
  CLI::Option* add_with(CLI::App& app, const std::string& description);
  CLI::Option* add_drop(CLI::App& app);

  // Throws UsageError if options contradict each other. `by_default`: the command carries snapshots
  // without --with-snapshots.
  void check(bool by_default) const;

  // Returns whether all snapshots are dropped on request.
  bool drops_all() const { return drops_all_; }
  // Returns whether options were given that need a source with snapshots.
  bool given() const { return with_ || drops_all_ || !dropped_.empty(); }
  // Returns the choice of the user. nullopt: no snapshots are carried.
  std::optional<copy::SnapshotChoice> choice(bool by_default) const;

 private:
  bool with_ = false;
  bool drops_all_ = false;
  std::vector<std::string> dropped_;
};

}  // namespace vc::tool
