// The user's options for the whole procedure.
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
  std::optional<qcow2::Format> format;  // nullopt: probe its content
  std::vector<std::string> others;      // more images that may have the disk as backing file
  // Empty: the result replaces the disk, which is kept as `backup_suffix` says.
  std::string output;
  std::optional<qcow2::Format> output_format;         // of an output; nullopt: format of the disk
  bool overwrite = false;                             // overwrite an existing output
  std::optional<std::string> backup_suffix = ".bak";  // nullopt: keep no backup
  Trimming trimming_by = Trimming::kAuto;
  appliance::TrimOptions trimming;  // optimize() itself sets its disks, overlay and known devices
  // Folder of the overlay in which the guest is trimmed. Empty: folder of the output or of the
  // disk.
  std::string overlay_folder;
  // Writes nothing but the temporary overlay, and replaces nothing. The report says what a run
  // would gain.
  bool dry_run = false;
  // A disk that would gain less stays unchanged. nullopt: always rewrite it. Ignored for an output,
  // for a result that differs from the disk (flattened, snapshots dropped), and for a new layout.
  std::optional<GainLimit> limit;
  // Data that is compressed in the disk stays compressed, with the same codec, unless `copy`
  // compresses all data.
  bool keep_compression = false;
  // Copy a guest that cannot be trimmed as it is.
  bool keep_going = false;
  // Repair a damaged image first. Nothing else writes to the disk. DISK.undo keeps the overwritten
  // bytes. Without this, a damaged image is an error.
  bool repair = false;
  // Drop persistent bitmaps. Without this, those that are valid go along.
  bool drop_bitmaps = false;
  // Options of the result. optimize() itself sets source, destination and verify. Unset options
  // take the disk's values, except for a backing file: its data goes into the result.
  copy::CopyOptions copy;
};

}  // namespace vc::optimize
