// The whole procedure: a bloated disk becomes a small, ordered and healthy one.
//
//     look at it -> find what the guest does not use -> check it -> copy -> verify, and check ->
//     swap
//
// The disk itself is never written.  The metadata of the guest's filesystems tell what is not used:
// that is zeros in the copy.  Where they cannot be believed, and it is worth a boot, filesystems
// are trimmed in the appliance, in a throw-away overlay with granules of 4 KiB, which holds next to
// nothing: what is trimmed is entries in its tables.  What is copied is the overlay then.  The disk
// is locked for reading until all is done, so that no other program writes to it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "appliance/observer.h"
#include "appliance/trim.h"
#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "copy/copier.h"
#include "optimize/free_space_plan.h"
#include "optimize/gain.h"
#include "optimize/image_check.h"
#include "qcow2/read/chain.h"

namespace vc::optimize {

struct OptimizeOptions {
  std::string disk;                     // a regular file
  std::optional<qcow2::Format> format;  // nothing: its content decides
  std::vector<std::string> others;      // more images that may have the disk for a backing file
  // Empty: the result takes the place of the disk, which is kept as `backup_suffix` says.
  std::string output;
  std::optional<qcow2::Format> output_format;         // of an output; nothing: that of the disk
  bool overwrite = false;                             // an output that is there
  std::optional<std::string> backup_suffix = ".bak";  // nothing: no backup
  Trimming trimming_by = Trimming::kAuto;
  appliance::TrimOptions trimming;  // its disks, overlay and known devices are set here
  // Folder of the overlay that the guest is trimmed in; empty: that of the disk, or of an output.
  std::string overlay_folder;
  // Nothing is written but that overlay, which goes again, and nothing is replaced: the report says
  // what a run would gain.
  bool dry_run = false;
  // A disk that gains less is left as it is.  Nothing: it is written afresh in any case.  Not for
  // an output, a disk that becomes another (a backing file goes into it, snapshots are dropped), or
  // one that is to have another layout.
  std::optional<GainLimit> limit;
  // What is compressed in the disk stays so, in its codec, unless `copy` compresses all.
  bool keep_compression = false;
  // A guest that cannot be trimmed is copied as it is.
  bool keep_going = false;
  // A damaged image is mended first, the only thing that writes to the disk; what it overwrites is
  // in DISK.undo.  Without this it is an error.
  bool repair = false;
  // Snapshots inside of the image are lost: without this they are an error.
  bool drop_snapshots = false;
  // What the result is like; its source, its destination and verify are set here.  What is not said
  // is as the disk has it, but for a backing file, of which what it has goes into the result.
  copy::CopyOptions copy;
};

struct OptimizeReport {
  struct Step {
    std::string name;
    std::chrono::duration<double> elapsed{};
  };

  std::string result;                            // where it is, or would be
  std::string backup;                            // empty: none
  qcow2::Format format = qcow2::Format::kQcow2;  // of the disk
  qcow2::Format result_format = qcow2::Format::kQcow2;
  uint64_t virtual_size = 0;  // bytes
  DiskFigures before;
  DiskFigures after;
  FreeSpacePlan plan;
  std::optional<appliance::TrimReport> trimmed;  // if the appliance was booted
  std::optional<Gain> gain;                      // if it was asked for
  bool dry_run = false;
  // It gains less than the limit: nothing was changed.
  bool compact = false;
  copy::CopySummary copied;
  std::vector<Step> steps;
  std::chrono::duration<double> elapsed{};
};

// On an error, when `cancel` is requested, and after a kill the disk is as it was; after a kill
// between the last two steps it is the new one, and the old one is beside it (disk_swap.h).  What
// a killed run left is found by the next, and told.
//
// To be called by a thread that stays until it returns.
Result<OptimizeReport> optimize(const OptimizeOptions& options, appliance::Observer& observer,
                                Progress& progress, const Cancel& cancel);

}  // namespace vc::optimize
