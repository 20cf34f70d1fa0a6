// What a disk of a domain and a disk of a QEMU without libvirt have in common: the files of the
// run, its journal and its report.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "live/attributes.h"
#include "live/context.h"
#include "live/folder.h"
#include "live/journal.h"
#include "live/report.h"
#include "live/run_meter.h"

namespace vc::live {

// Returns the inode of the file `name`; 0: there is none.
ino_t inode_of(const LiveFolder& folder, const std::string& name);

class RunDisk {
 public:
  RunDisk(const RunDisk&) = delete;
  RunDisk& operator=(const RunDisk&) = delete;

  const LiveFolder& folder() const { return folder_; }
  const std::string& target() const { return report_.target; }
  bool has_journal() const { return journal_.has_value(); }
  Journal& journal() { return *journal_; }
  LiveDiskReport& report() { return report_; }
  // Returns true if a cancellation no longer undoes the run: the fresh image is complete.
  bool is_decided() const { return decided_; }
  void count_pause(Seconds pause) { meter_.count_pause(pause); }

 protected:
  // For a new run. `context` must outlive the object.
  RunDisk(const RunContext& context, LiveFolder folder, const std::string& domain);
  // For a run that was stopped: takes over its journal.
  RunDisk(const RunContext& context, LiveFolder folder, Journal journal, const std::string& domain);
  ~RunDisk() = default;

  // Opens the folder of the disk at `path` for a new run. Returns an error if an earlier run was
  // stopped.
  static Result<LiveFolder> open_folder(const RunContext& context, const std::string& path);

  // Creates the journal, and gives the disk its second name.
  Result<void> begin_journal(Record record);
  const Record& record() const { return *journal_->record(); }
  Owner owner() const { return {record().user, record().group}; }

  // Copies the disk, to which nothing writes, to the fresh image. Returns false if the gain is too
  // small.
  Result<bool> copy_base();
  // Remove what the run has left beside the fresh image, or beside the disk as it was before.
  Result<void> tidy_fresh();
  Result<void> tidy_original();

  LiveFolder folder_;
  std::optional<Journal> journal_;
  LiveDiskReport report_;
  RunMeter meter_;
  bool decided_ = false;

 private:
  Result<void> remove_files();
  Result<void> end_journal();

  const RunContext& run_;
};

}  // namespace vc::live
