// What a user asks of the whole procedure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "appliance/trim.h"
#include "copy/copier.h"
#include "optimize/free_space_plan.h"
#include "optimize/gain.h"
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

}  // namespace vc::optimize
