// How large a compressed image will be, from a part of the clusters.
//
// The live clusters, in units of a few in a row, are divided into strata of the same number; of
// each stratum one unit is drawn, by a seed that never changes, read, and compressed by the very
// class that does it in a copy.  The builder then lays out the whole image for nobody, in which
// every unit is like the one that was drawn of its stratum.
//
// The error is bounded with the empirical Bernstein inequality (Audibert, Munos, Szepesvári 2009):
// it needs no assumption about how well what was not read compresses, only that a cluster takes
// from nothing to its own size.
#pragma once

#include <cstdint>

#include "base/progress.h"
#include "base/result.h"
#include "base/stop.h"
#include "copy/pipeline/cluster_worker.h"
#include "copy/source/local_source.h"
#include "copy/source/source.h"
#include "qcow2/format/build_options.h"

namespace copy {

struct SizeEstimate {
  // How often low … high holds what a copy takes, at least, over images of any kind.
  static constexpr double kConfidence = 0.99;

  bool all_read = false;   // there is too little to draw from: nothing else is set
  uint64_t file_size = 0;  // bytes
  uint64_t low = 0;
  uint64_t high = 0;
  uint64_t live = 0;     // clusters that the source does not call zeros
  uint64_t sampled = 0;  // bytes that were read
};

// `local`: the source, if that is what it is, else nullptr.  `budget`: bytes to be read at most.
qcow2::Result<SizeEstimate> estimate_size(Source& source, const LocalSource* local,
                                          const qcow2::BuildOptions& build,
                                          const ClusterWorker::Options& worker, uint64_t budget,
                                          unsigned threads, Progress& progress, Stop& stop);

}  // namespace copy
