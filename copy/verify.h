// Reads a finished copy and compares it with the digests of its source.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "copy/pipeline/pipeline.h"
#include "copy/sink/digests.h"
#include "copy/source/source.h"

namespace vc::copy {

struct VerifySummary {
  uint64_t size = 0;  // guest bytes compared
  // part of `size` that was read; the rest is zeros according to the metadata or the server
  uint64_t read = 0;
  uint64_t shared = 0;  // other part of `size`: in the same blocks as in the source, not read
  std::chrono::duration<double> elapsed{};
};

// Compares every guest byte of `copy`, which must be newly opened, with the digests of its source.
// A larger copy is compared up to the size of the source; a smaller copy is an error. If bytes
// differ, the error names the ranges, with the resolution of the digests' regions. Overrides
// clusters and compression of `options`. Reports progress of phase kVerify.
//
// Clones are compared with `original`, the source, which no other thread uses meanwhile; it may be
// nullptr if nothing was cloned.
Result<VerifySummary> verify(const Digests& source, Source& copy, const Pipeline::Options& options,
                             Progress& progress, const Cancel& cancel, Source* original = nullptr);

// Drops the page cache of a file or block device, so that the next read comes from the disk. Must
// be called before `path` is opened for verification, and after a flush, since dirty pages stay.
// Failure is ignored: a filesystem in memory has no other copy of the pages.
void forget_cached(const std::string& path);

}  // namespace vc::copy
