// How far the maker of an image is trusted: the options of all commands that open images.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "qcow2/read/trust.h"
#include "tool/options/arguments.h"
#include "tool/options/confinement.h"
#include "tool/terminal/console.h"

namespace tool {

class TrustOptions {
 public:
  // All bind to this object, which must outlive `app`.
  //
  // --backing and --data-file.  `reads_only`: --backing=none is a choice, too.
  void add_options(CLI::App& app, bool reads_only);
  // The same for commands with -B: --backing takes BASE, too, as it did before it took a rule.
  // Returns -B.
  CLI::Option* add_options(CLI::App& app, bool reads_only, std::string& base,
                           const std::string& base_description);
  // --untrusted and --limits.
  void add_untrusted(CLI::App& app);

  // Throws UsageError when they contradict each other.
  void check() const;

  bool untrusted() const { return untrusted_; }
  qcow2::Trust trust() const;

  // With --untrusted: confines the process to the files of `plan`, and starts the clock: when it
  // runs out, the command is cancelled, and a little later the process ends with `failure_code`.
  // Does nothing otherwise.  Before anything is opened, and before any thread starts.
  qcow2::Result<void> begin(const Console& console, const ConfinementPlan& plan,
                            int failure_code) const;

  // The same for what only reads the files `names`; a name of a server is an error.
  qcow2::Result<void> begin_reading(const Console& console, const std::vector<std::string>& names,
                                    int failure_code) const;

 private:
  void add_rules(CLI::App& app, bool reads_only, std::string* base);
  void take_backing(const std::string& word, std::string* base);

  qcow2::NamePolicy names_;
  bool backing_given_ = false;
  bool reads_only_ = false;
  bool untrusted_ = false;
  bool strict_ = false;
  bool limits_given_ = false;
  qcow2::ImageLimits limits_;
  std::optional<std::chrono::seconds> time_;  // nothing: by the size of the files
};

// With --backing=none: a warning for each of the files `names` that is an overlay.
void warn_of_left_out(const Console& console, const qcow2::Trust& trust,
                      const std::vector<std::string>& names);

// An error for what is no file: --untrusted goes with files alone.
qcow2::Result<void> check_is_file(const std::string& name);

}  // namespace tool
