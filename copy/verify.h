// Reads a finished copy again, and compares it with what was read from its source.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "copy/pipeline/pipeline.h"
#include "copy/sink/digests.h"
#include "copy/source/local_source.h"
#include "copy/source/nbd_source.h"

namespace copy {

struct VerifySummary {
  uint64_t size = 0;  // guest bytes that were compared
  uint64_t read = 0;  // of them; the others are zeros, as the metadata (or the server) says
  std::chrono::duration<double> elapsed{};
};

// Compares every guest byte of `copy`, opened anew, with the digests of its source.  A copy that is
// larger is compared as far as the source goes, a smaller one is an error.  Where the bytes are
// different the error names the ranges, which are as fine as the digests' regions.
//
// Of `options`, clusters and compression are set here.  Tells `progress` of the phase kVerify.
qcow2::Result<VerifySummary> verify(const Digests& source, LocalSource& copy,
                                    const Pipeline::Options& options, Progress& progress,
                                    const Cancel& cancel);
qcow2::Result<VerifySummary> verify(const Digests& source, NbdSource& copy,
                                    const Pipeline::Options& options, Progress& progress,
                                    const Cancel& cancel);

// Makes the system forget what it holds of a file or block device in memory, so that reading it
// reads the disk.  Before `path` is opened for verifying, and after it was flushed: dirty pages
// stay.  Where the system does not do it (a file system in memory has nowhere else to put the file)
// nothing is lost but this.
void forget_cached(const std::string& path);

}  // namespace copy
