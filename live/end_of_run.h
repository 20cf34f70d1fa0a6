// The end of a run for one disk, and the files of a run that was stopped.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <string>

#include "base/caught.h"
#include "base/result.h"
#include "live/context.h"
#include "live/folder.h"
#include "live/journal.h"
#include "live/report.h"

namespace vc::live {

// Returns the absolute path of a file, without symbolic links.
Result<std::string> real_path(const std::string& path);

struct StoppedFiles {
  LiveFolder folder;
  Journal journal;  // has a record
};

// Opens the journal of a run for the disk at `path` that was stopped, and takes it over.
Result<StoppedFiles> open_stopped(const std::string& path);

// Returns what the user can do about a run of the disk `disk` that was stopped: two commands.
// `qmp_socket`: of its QEMU, or a word for it; empty: a domain of libvirt.
std::string way_out(const std::string& disk, const std::string& qmp_socket);

// Returns an error, which says what the user can do, if a run for the disk of `folder`, or for the
// disk at `path`, is under way or was stopped.
Result<void> check_no_run(const LiveFolder& folder);
Result<void> check_no_run(const std::string& path);

// Returns `why` and what the user can do about a run of the disk `disk` that is neither finished
// nor undone.
std::string stopped_text(const RunContext& context, const std::string& disk,
                         const std::string& why);

// Takes the remaining steps of `disk`, a LiveDisk or a QmpDisk, and undoes them after an error or
// an exception.
template <typename Disk>
void finish_or_undo(const RunContext& context, Disk& disk) {
  LiveDiskReport& report = disk.report();
  const auto start = std::chrono::steady_clock::now();
  Result<bool> done = true;
  if (context.cancel.requested() && !disk.is_decided())
    done = fail(Error::cancelled());
  else
    done = caught(report.disk, [&] { return disk.finish(); });
  if (done && *done) {
    if (context.cancel.requested())
      context.observer.warning(report.disk + ": the run was finished, since its copy was complete");
  } else {
    report.error = done ? std::string() : done.error().message();
    if (const auto undone = disk.undo(); !undone) {
      report.failed = true;
      if (report.error == undone.error().message()) report.error.clear();
      if (!report.error.empty()) report.error += "; ";
      report.error = stopped_text(context, report.disk, report.error + undone.error().message());
    } else if (done) {
      report.outcome = LiveDiskReport::Outcome::kCompact;
    }
  }
  report.elapsed = std::chrono::steady_clock::now() - start;
}

}  // namespace vc::live
