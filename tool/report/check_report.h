// What `check` prints.
#pragma once

#include <string>

#include "qcow2/check/checker.h"
#include "tool/report/check_log.h"

namespace tool {

struct CheckReport {
  std::string filename;  // as the user gave it
  qcow2::Geometry geometry;
  bool deep = false;
  qcow2::CheckSums sums;  // after a repair: what is left
  bool dry_run = false;   // what is fixed would be, and sums are of the image as it is
  uint64_t leaks_fixed = 0;
  uint64_t corruptions_fixed = 0;
  bool has_written = false;
  uint64_t given_back = 0;  // bytes
  bool undo_full = false;
  bool counts_left = false;  // see qcow2::RepairResult
  bool entries_left = false;
  std::string undo_file;  // that takes the repair back; empty: nothing was written
};

// qemu-img's exit codes.
inline constexpr int kCheckFailed = 1;
inline constexpr int kCheckCorrupt = 2;
inline constexpr int kCheckLeaks = 3;
inline constexpr int kCheckUnsupported = 63;
int check_exit_code(const qcow2::CheckSums& sums);

// One line for each finding, in qemu-img's manner: ERROR, Leaked, …
std::string check_findings(const CheckReport& report, const CheckLog& log);
// What was repaired, for a person; empty: nothing.
std::string check_repairs(const CheckReport& report);
// The sums for a person.
std::string check_summary(const CheckReport& report);
// qemu-img's keys (those that are 0 left out, as there) and ours.
std::string check_report_json(const CheckReport& report, const CheckLog& log);

}  // namespace tool
