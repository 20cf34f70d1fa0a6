// The output of `check`.
#pragma once

#include <string>

#include "qcow2/check/checker.h"
#include "tool/report/check_log.h"

namespace vc::tool {

struct CheckReport {
  std::string filename;  // as the user gave it
  qcow2::Geometry geometry;
  bool deep = false;
  qcow2::CheckSums sums;  // after a repair: what remains
  bool dry_run = false;   // the repairs are predicted; sums are of the unchanged image
  uint64_t leaks_fixed = 0;
  uint64_t corruptions_fixed = 0;
  bool has_written = false;
  uint64_t deallocated = 0;  // deallocated, bytes
  bool undo_full = false;
  bool counts_left = false;  // see qcow2::RepairResult
  bool entries_left = false;
  std::string undo_file;  // undoes the repair; empty: nothing was written
};

// qemu-img's exit codes.
inline constexpr int kCheckFailed = 1;
inline constexpr int kCheckCorrupt = 2;
inline constexpr int kCheckLeaks = 3;
inline constexpr int kCheckUnsupported = 63;
int check_exit_code(const qcow2::CheckSums& sums);

// Returns one line per finding, in qemu-img's style: ERROR, Leaked, …
std::string check_findings(const CheckReport& report, const CheckLog& log);
// Returns the repairs as text. Empty if there are none.
std::string check_repairs(const CheckReport& report);
// Returns the sums as text.
std::string check_summary(const CheckReport& report);
// Returns JSON with qemu-img's keys (omitted if 0, as there) and our own.
std::string check_report_json(const CheckReport& report, const CheckLog& log);

}  // namespace vc::tool
