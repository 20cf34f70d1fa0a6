#include "tool/options/snapshot_options.h"

#include <string_view>

#include "tool/options/arguments.h"
#include "tool/options/property_list.h"

namespace vc::tool {

namespace {

// What CLI11 passes for the option without a value: no name of a snapshot.
constexpr std::string_view kNoNames = "\x1f";

}  // namespace

CLI::Option* SnapshotOptions::add_with(CLI::App& app, const std::string& description) {
  return add_switch(app, "--with-snapshots", with_, description);
}

// A flag, so that a value is accepted only after "=", never as the next word.
CLI::Option* SnapshotOptions::add_drop(CLI::App& app) {
  return app.add_flag("--drop-snapshots{" + std::string(kNoNames) + "}")
      ->description("leave out all, or these, internal snapshots")
      ->type_name("[=NAME,...]")
      ->each([this](const std::string& text) {
        if (text == kNoNames) {
          drops_all_ = true;
          return;
        }
        for (std::string& name : split_list(text)) {
          if (name.empty()) throw UsageError("--drop-snapshots: a name is empty");
          dropped_.push_back(std::move(name));
        }
      });
}

void SnapshotOptions::check(bool by_default) const {
  if (drops_all_ && !dropped_.empty())
    throw UsageError("--drop-snapshots: drops all snapshots, and cannot also name some");
  if (with_ && drops_all_)
    throw UsageError(
        "--with-snapshots and --drop-snapshots exclude each other: name the snapshots "
        "to drop, as in --drop-snapshots=NAME");
  if (!by_default && !with_ && !dropped_.empty())
    throw UsageError("--drop-snapshots=NAME: no snapshots are copied without --with-snapshots");
}

std::optional<copy::SnapshotChoice> SnapshotOptions::choice(bool by_default) const {
  if (drops_all_ || (!by_default && !with_)) return std::nullopt;
  copy::SnapshotChoice choice;
  choice.dropped = dropped_;
  return choice;
}

}  // namespace vc::tool
