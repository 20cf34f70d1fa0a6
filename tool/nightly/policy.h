// Which disks of a host are optimized every night, and how.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "appliance/trim_options.h"
#include "base/result.h"
#include "optimize/gain.h"
#include "optimize/options.h"
#include "tool/nightly/time_window.h"

namespace vc::tool {

// How a disk is optimized. The top of a policy sets the defaults of its rules.
struct NightlySettings {
  uint64_t every_days = 7;
  optimize::GainLimit gain;
  std::optional<qcow2::Compression> compression;  // nullopt: as in the disk
  uint64_t rate_limit = 0;                        // bytes per second to read; 0: no limit
  unsigned threads = 0;                           // 0: one per processor
  optimize::Trimming trim = optimize::Trimming::kAuto;
  appliance::TrimOptions::Drop drop;
  bool keep_going = false;
  bool live = false;  // optimize guests that run, too
  bool fstrim = true;
  bool backup = true;                   // keep the old disk
  std::optional<uint64_t> backup_days;  // remove the old disk after this time; nullopt: never

  NightlySettings() {
    gain.said = true;
    gain.percent = 10;
  }
  // Returns a text that differs for settings under which the same disk may be rewritten or not.
  std::string fingerprint() const;
};

// Disks of domains of libvirt.
struct DomainRule {
  std::vector<std::string> names;    // patterns
  std::vector<std::string> except;   // patterns
  std::vector<std::string> targets;  // patterns, such as "vda"
  NightlySettings settings;

  bool takes(const std::string& name) const;
};

// Disks that no domain needs to have.
struct DiskRule {
  std::vector<std::string> paths;  // absolute
  qcow2::Format format = qcow2::Format::kQcow2;
  NightlySettings settings;
};

struct Policy {
  std::string connection;  // libvirt connection URI; empty: the libvirts of this machine
  std::string state = "/var/lib/virt-compact/nightly";  // a folder
  std::optional<TimeWindow> window;
  bool stop_at_end = false;  // stop the disk that is being optimized at the end of the window
  std::vector<DomainRule> domains;  // the first rule that takes a name counts
  std::vector<DiskRule> disks;
};

// Reads a policy, which is TOML. Errors begin with "NAME:LINE: ".
Result<Policy> read_policy(std::string_view text, const std::string& name);

// Reads the file. Returns an error if other users than its owner could change it, or if the owner
// is neither root nor this user.
Result<Policy> load_policy(const std::string& path);

}  // namespace vc::tool
