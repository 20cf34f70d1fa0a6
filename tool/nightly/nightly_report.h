// The report of a night.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tool/terminal/terminal.h"

namespace vc::tool {

struct NightlyEntry {
  enum class Outcome {
    kOptimized,
    kExpected,  // a dry run: the disk would be optimized
    kSkipped,
    kStopped,  // by a signal, or at the end of the time window
    kFailed,
  };
  // Why a disk was skipped: a word for programs.
  enum class Why {
    kNone,
    kStopped,    // the run was stopped before
    kWindow,     // it is not the time
    kRefused,    // this disk is never optimized
    kRuns,       // its guest runs
    kInUse,      // another domain or program uses it
    kNotDue,     // its last run is not long enough ago
    kUnchanged,  // since its last run
    kBackup,     // its old disk exists
    kOverlay,    // it has a backing file
    kBase,       // it is a backing file
    kGain,       // it would gain too little
    kTwice,      // it is the same file as an earlier disk
  };

  std::string domain;
  std::string target;
  std::string disk;
  Outcome outcome = Outcome::kSkipped;
  Why why = Why::kNone;
  std::string text;                // reason, error, or what was done
  std::optional<uint64_t> before;  // bytes on the disk
  std::optional<uint64_t> after;   // after a dry run: as expected
  std::string backup;              // the old disk that was kept; empty: none
  std::string removed_backup;      // an old disk that was removed; empty: none
  double seconds = 0;
  int64_t last_success = 0;        // before this run, in seconds since 1970; 0: never
  std::string last_outcome;        // of the last run that did something with the disk
  nlohmann::ordered_json details;  // the report of the run; null: there was none

  uint64_t saved() const { return before && after && *before > *after ? *before - *after : 0; }
};

struct NightlyReport {
  bool dry_run = false;
  int64_t begin = 0;  // seconds since 1970
  int64_t end = 0;
  std::vector<NightlyEntry> disks;
  std::vector<std::string> errors;  // that concern no single disk

  size_t count(NightlyEntry::Outcome outcome) const;
  // Returns true if a disk has failed, or if there are other errors.
  bool failed() const;
};

const char* to_string(NightlyEntry::Outcome outcome);
const char* to_string(NightlyEntry::Why why);

// Returns the report as text: a line for each disk, and a sum. Ends with a newline.
std::string nightly_report(const NightlyReport& report, const Palette& palette);

// Returns the report as JSON, sizes in bytes, times in seconds.
nlohmann::ordered_json nightly_report_json(const NightlyReport& report);

}  // namespace vc::tool
