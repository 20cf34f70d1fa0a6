// The main job: stream the live clusters of a source into a freshly laid-out QCOW2.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "copy/cancel.h"
#include "copy/progress.h"
#include "qcow2/chain.h"
#include "qcow2/header.h"
#include "qcow2/result.h"

namespace copy {

struct CopyOptions {
  std::string source;                          // a path, or an NBD URI
  std::string destination;                     // a path
  std::optional<qcow2::Format> source_format;  // nothing: found out; not for NBD, where it is raw
  std::string snapshot;      // an internal snapshot by id or name; empty: the disk as it is now
  bool overwrite = false;    // replace an existing destination
  bool force_share = false;  // read files that somebody writes to

  std::optional<qcow2::CompressionType> compression;  // nothing: plain clusters
  int compression_level = 0;                          // 0: the codec's default
  std::optional<unsigned> cluster_bits;  // nothing: the source's own, or 16 when it has none

  unsigned threads = 0;      // that read, look for zeros and compress; 0: one for each processor
  unsigned connections = 4;  // to an NBD server, if it allows several
  unsigned requests = 16;    // in flight on each connection
  uint64_t request_size = 256 << 10;  // bytes of one NBD request; a power of two, 4 KiB … 32 MiB
};

struct CopySummary {
  // What a file takes: its length, and the blocks that it has on the disk, both in bytes.
  struct FileSize {
    uint64_t length = 0;
    uint64_t blocks = 0;
  };

  uint64_t virtual_size = 0;  // bytes
  uint64_t cluster_size = 0;  // of the destination, bytes
  // Of the source with its whole backing chain; nothing for NBD.
  std::optional<FileSize> source;
  FileSize destination;
  // Clusters of the destination's virtual disk.
  uint64_t data_clusters = 0;
  uint64_t compressed_clusters = 0;
  uint64_t zero_clusters = 0;  // left out, found to be zeros or said to be by the source
  // How many of the compressed went across as they were, and how many zero clusters were stored as
  // data in the source.
  uint64_t passed_through_clusters = 0;
  uint64_t found_zero_clusters = 0;
  std::chrono::duration<double> elapsed{};
};

// Copies.  On success the destination is whole, on disk, and under its name; on an error, or when
// `cancel` is requested, nothing of it is left and an earlier file of that name is untouched.  The
// source is never written.
qcow2::Result<CopySummary> copy(const CopyOptions& options, Progress& progress,
                                const Cancel& cancel);

}  // namespace copy
