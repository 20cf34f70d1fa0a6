// Estimates the size of a compressed image from a sample of its clusters.
//
// The live clusters, in units of a few consecutive ones, are divided into strata of equal size. One
// unit per stratum is drawn with a fixed seed, read, and compressed by the class that copies use.
// The builder then lays out the whole image in a dry run, in which every unit equals the drawn unit
// of its stratum.
//
// The error is bounded with the empirical Bernstein inequality (Audibert, Munos, Szepesvári 2009).
// It assumes nothing about how well unread data compresses, only that a cluster takes between
// nothing and its own size.
#pragma once

#include <cstdint>

#include "base/progress.h"
#include "base/result.h"
#include "base/stop.h"
#include "copy/pipeline/cluster_worker.h"
#include "copy/source/local_source.h"
#include "copy/source/source.h"
#include "qcow2/format/build_options.h"

namespace vc::inspect {

struct SizeEstimate {
  // Minimum probability that [low, high] holds the size of the copy, for images of any kind.
  static constexpr double kConfidence = 0.99;

  bool all_read = false;   // too few clusters to sample: nothing else is set
  uint64_t file_size = 0;  // bytes
  uint64_t low = 0;
  uint64_t high = 0;
  uint64_t live = 0;     // clusters that are not zeros according to the source
  uint64_t sampled = 0;  // bytes read
};

// `budget`: maximum bytes to read.
Result<SizeEstimate> estimate_size(copy::Source& source, const qcow2::BuildOptions& build,
                                   const copy::ClusterWorker::Options& worker, uint64_t budget,
                                   unsigned threads, Progress& progress, Stop& stop);

}  // namespace vc::inspect
