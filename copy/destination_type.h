// What the destination of a copy is, and checks of the options that depend on it.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "copy/copy_options.h"
#include "copy/source/source.h"
#include "nbd/target.h"
#include "qcow2/format/format_probe.h"

namespace vc::copy {

struct DestinationType {
  enum class Kind { kFile, kDevice, kServer, kStream, kNull };

  // Finds the type of the destination. Returns an error if the other options do not fit it.
  static Result<DestinationType> probe(const CopyOptions& options);

  Kind kind = Kind::kFile;
  std::optional<nbd::NbdTarget> server;  // set for kServer
  qcow2::Format format = qcow2::Format::kQcow2;
};

// Returns an error if the destination, or its external data file, is one of the files that are
// read, under any name.
Result<void> check_not_source(const CopyOptions& options, const DestinationType& destination,
                              const Source& source);

// Returns the length of runs of zeros that become holes in a raw destination, bytes.
uint64_t hole_size(const CopyOptions& options, bool on_server);

// Returns the unit of an update with --bitmap, bytes: the cluster or hole size of the copy.
Result<uint64_t> update_unit(const CopyOptions& options);

}  // namespace vc::copy
