// Options of commands that compact an image in its own file, with --in-place.
#pragma once

#include <set>
#include <string>

#include "qcow2/relocate/in_place.h"
#include "tool/options/arguments.h"
#include "tool/options/layout_options.h"

namespace vc::tool {

class InPlaceFlags {
 public:
  // Adds --in-place, described by `help`, --shrink, --zeros, --defragment and --compress. They bind
  // to this object and to `layout`; both, and `app`, must outlive the parsing.
  void add_options(CLI::App& app, LayoutOptions& layout, const std::string& help);

  bool in_place() const { return in_place_; }
  // Returns true if the user chose a level other than compression.
  bool says_level() const { return shrink_ || zeros_ || defragment_; }
  // Returns true if a level reads all data to find zeros.
  bool reads_data() const { return zeros_ || defragment_; }

  // Throws UsageError: without --in-place, for options that need it; with it, for an option that is
  // neither one of these, nor of compression, nor in `accepted` (long names without dashes).
  // `why`: the reason for options that choose the layout of a copy.
  void check(const LayoutOptions& layout, const std::set<std::string>& accepted,
             const std::string& why) const;

  // Sets the levels and the compression. `orders`: whether to defragment if no level was given.
  void apply_to(const LayoutOptions& layout, bool orders, qcow2::InPlaceOptions& options) const;

 private:
  const CLI::App* app_ = nullptr;
  bool in_place_ = false;
  bool shrink_ = false;
  bool zeros_ = false;
  bool defragment_ = false;
};

}  // namespace vc::tool
