#include "tool/options/in_place_options.h"

#include <fmt/format.h>

#include <utility>

namespace vc::tool {

namespace {

// Returns the long name without dashes, or the short one. Empty: a positional.
std::string name_of(const CLI::Option& option) {
  if (!option.get_lnames().empty()) return option.get_lnames().front();
  return option.get_snames().empty() ? "" : option.get_snames().front();
}

std::string with_dashes(const std::string& name) {
  return (name.size() == 1 ? "-" : "--") + name;
}

}  // namespace

void InPlaceFlags::add_options(CLI::App& app, LayoutOptions& layout, const std::string& help) {
  app_ = &app;
  add_switch(app, "--in-place", in_place_, help);
  add_switch(app, "--shrink", shrink_, "with --in-place: move the end into free clusters")
      ->group(kRareOptions);
  add_switch(app, "--zeros", zeros_, "with --in-place: free clusters of zeros, too")
      ->group(kRareOptions);
  add_switch(app, "--defragment", defragment_, "with --in-place: order the data, too")
      ->group(kRareOptions);
  app.add_flag_callback(
         "--compress", [&layout] { layout.compress(); }, "same as -c")
      ->group(kRareOptions);
}

void InPlaceFlags::check(const LayoutOptions& layout, const std::set<std::string>& accepted,
                         const std::string& why) const {
  static const std::set<std::string> kOwn = {"in-place", "shrink", "zeros",       "defragment",
                                             "compress", "c",      "compression", "help",
                                             "help-all", "version"};
  if (!in_place_) {
    for (const auto& [given, option] :
         {std::pair(shrink_, "--shrink"), {zeros_, "--zeros"}, {defragment_, "--defragment"}})
      if (given)
        throw UsageError(fmt::format(
            "{} needs --in-place: a copy is as short and as ordered as it can be", option));
    return;
  }
  for (const CLI::Option* it : app_->get_options()) {
    const std::string name = name_of(*it);
    if (it->count() == 0 || name.empty() || kOwn.contains(name) || accepted.contains(name))
      continue;
    throw UsageError(fmt::format("{} and --in-place: {}", with_dashes(name), why));
  }
  if (layout.compression() && !layout.compression()->type)
    throw UsageError("--compression=none and --in-place: nothing is decompressed: omit it");
}

void InPlaceFlags::apply_to(const LayoutOptions& layout, bool orders,
                            qcow2::InPlaceOptions& options) const {
  options.zeros = zeros_;
  options.defragment = defragment_ || (orders && !says_level());
  options.compress = layout.compresses();
  if (layout.compression()) options.compression = *layout.compression();
}

}  // namespace vc::tool
