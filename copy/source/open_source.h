// Opens a source by its name.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/stop.h"
#include "copy/source/disk_name.h"
#include "copy/source/nbd_source.h"
#include "copy/source/source.h"
#include "nbd/target.h"
#include "qcow2/format/format_probe.h"
#include "qcow2/read/trust.h"

namespace vc::copy {

struct SourceOptions : DiskName {
  std::string snapshot;
  bool force_share = false;
  qcow2::Trust trust;    // files only
  bool salvage = false;  // see LocalSource; an error for other sources
  NbdSource::Options nbd;
  bool metadata_only = false;  // see qcow2::OpenOptions
};

// Opens the file, server or pipe that `options` name. `stop` must outlive the source.
Result<std::unique_ptr<Source>> open_source(const SourceOptions& options, const Stop& stop);

// Returns the server that a name or command refers to. Returns nullopt if it is a path.
Result<std::optional<nbd::NbdTarget>> nbd_target(const std::string& name,
                                                 const std::vector<std::string>& command);

}  // namespace vc::copy
