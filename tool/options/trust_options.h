// Options for trust in an image, for all commands that open images.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "qcow2/read/trust.h"
#include "tool/options/arguments.h"
#include "tool/options/confinement.h"
#include "tool/terminal/console.h"

namespace vc::tool {

class TrustOptions {
 public:
  // Adds --backing and --data-file. All options bind to this object, which must outlive `app`.
  // `reads_only`: also accept --backing=none.
  void add_options(CLI::App& app, bool reads_only);
  // Same for commands with -B: --backing also accepts BASE, for compatibility. Returns -B.
  CLI::Option* add_options(CLI::App& app, bool reads_only, std::string& base,
                           const std::string& base_description);
  // Adds --untrusted and --limits.
  void add_untrusted(CLI::App& app);

  // Throws UsageError if the options conflict.
  void check() const;

  bool untrusted() const { return untrusted_; }
  qcow2::Trust trust() const;

  // With --untrusted: confines the process to the files of `plan` and starts the time limit. At the
  // limit, the command is cancelled; shortly after, the process exits with `failure_code`. Does
  // nothing without --untrusted. Must be called before any file is opened and before any thread
  // starts.
  Result<void> begin(const Console& console, const ConfinementPlan& plan, int failure_code) const;

  // Same for commands that only read the files `names`. The name of a server is an error.
  Result<void> begin_reading(const Console& console, const std::vector<std::string>& names,
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
  std::optional<std::chrono::seconds> time_;  // nullopt: depends on the size of the files
};

// With --backing=none: prints a warning for each file of `names` that is an overlay.
void warn_of_left_out(const Console& console, const qcow2::Trust& trust,
                      const std::vector<std::string>& names);

// Returns an error if `name` is not a file: --untrusted supports only files.
Result<void> check_is_file(const std::string& name);

}  // namespace vc::tool
