// Options for trust in an image, for all commands that open images.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "qcow2/read/trust.h"
#include "tool/options/arguments.h"
#include "tool/options/confinement.h"
#include "tool/options/disk_keys.h"
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
  // Adds --key, for commands without volumes of a guest.
  void add_key_option(CLI::App& app) { add_disk_key_option(app, keys_); }
  // Returns the passphrases of encrypted images, to which other options add.
  const std::shared_ptr<crypto::KeyRing>& keys() const { return keys_; }

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

  // Same for commands that only read the files `names`, and replace files in `folders`. The name of
  // a server is an error.
  Result<void> begin_reading(const Console& console, const std::vector<std::string>& names,
                             int failure_code, const std::vector<std::string>& folders = {}) const;

 private:
  void add_rules(CLI::App& app, bool reads_only, std::string* base);
  void take_backing(const std::string& word, std::string* base);

  qcow2::NamePolicy names_;
  std::shared_ptr<crypto::KeyRing> keys_ = std::make_shared<crypto::KeyRing>();
  bool backing_given_ = false;
  bool reads_only_ = false;
  bool untrusted_ = false;
  bool strict_ = false;
  bool limits_given_ = false;
  qcow2::ImageLimits limits_;
  std::optional<std::chrono::seconds> time_;  // nullopt: depends on the size of the files
};

// Prints a warning for each file of `names` that is encrypted with the old AES method, if there are
// passphrases, and with --backing=none, for each overlay.
void warn_of_images(const Console& console, const qcow2::Trust& trust,
                    const std::vector<std::string>& names);

// Returns an error if `name` is not a file: --untrusted supports only files.
Result<void> check_is_file(const std::string& name);

}  // namespace vc::tool
