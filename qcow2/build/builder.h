// Builds a new QCOW2 image, append-only and in guest order.
//
// The builder allocates clusters and writes the metadata.  The caller writes the guest data at the
// returned offsets, at any time before finish () and from any thread.  So the same calls give the
// same layout, however the writes are distributed.
//
// The file, in clusters; R is the number of clusters that one refcount block covers:
//
//     0           header (written last)
//     1 …         the LUKS header of an encrypted image
//     … …         guest data; each L2 table directly after the data that it maps
//     k * R - 1   a refcount block for the R clusters that end with it, k = 1, 2, …
//     … …         for each snapshot: clusters and L2 tables that no earlier state has, its VM
//                 state, its L1 table; then the snapshot table
//     … end       the last L2 table, the L1 table, the refcount table, the last refcount blocks
//
// With small clusters, the LUKS header would be divided by a refcount block: it then follows the L1
// table.
//
// A refcount block at the end of its range can be written once, when the range is full.  So memory
// holds one L2 table, one refcount block, the L1 table and the refcount table, for any image size.
// With snapshots, it also holds the L1 table of one snapshot, and reads back tables of the file.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "qcow2/build/sharing.h"
#include "qcow2/format/build_options.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/snapshot_table.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

struct BuildCounts {
  uint64_t data_clusters = 0;
  uint64_t compressed_clusters = 0;
  uint64_t compressed_bytes = 0;
  uint64_t zero_clusters = 0;  // explicit zero entries; omitted clusters do not count
  uint64_t preallocated_clusters = 0;
  uint64_t file_size = 0;  // bytes; valid after finish ()
};

// Not thread-safe: the caller must order the clusters, and so has a lock or one thread for this.
class Builder {
 public:
  // The content of bytes of the file that are not written, because they do not matter.
  enum class Gaps {
    kLeave,    // they are holes
    kUnknown,  // they keep their old content: a block device
    kZero,     // write_zeroes () zeroes them, so that each byte outside of the first cluster is
               // written or zeroed once
  };
  // `out` must be empty and outlive the builder.  Returns an error for the user if the options
  // contradict each other or the disk is too large for them.
  static Result<std::unique_ptr<Builder>> create(Storage& out, const BuildOptions& options,
                                                 Gaps gaps = Gaps::kLeave);
  ~Builder();

  // Guest clusters must be placed in strictly ascending order.  Clusters that are not placed read
  // as zeros, or as the backing file if there is one.

  struct Placement {
    HostOffset host;
    uint64_t clusters;  // at least 1: how many of the requested clusters are contiguous at `host`
  };
  // The place functions fail without a change if a cluster is out of order or past the end of the
  // disk.  They also fail if the file would exceed QEMU's limit on the refcount table or the width
  // of a host offset; after that, or after a storage error, the image is unusable.

  // Allocates up to `clusters` uncompressed guest clusters from `first`.  Call again for the rest.
  // With an external data file the host offset is the guest offset in that file.
  Result<Placement> place_data(ClusterIndex first, uint64_t clusters);

  // Allocates space for one compressed cluster of `length` bytes, 0 < length < cluster size.
  // Streams are packed without alignment: neighbours may share a host cluster, and a stream may
  // cross into the next one.  A short stream may go into a gap shortly before, which uncompressed
  // clusters or a table have left.
  Result<HostOffset> place_compressed(ClusterIndex cluster, uint64_t length);

  // Makes `clusters` guest clusters from `first` read as zeros, whatever the backing file contains.
  // Version 3 only.
  Result<void> place_zero(ClusterIndex first, uint64_t clusters);

  // Allocates clusters that read as zeros, without writing them.  Later writes to the disk use
  // them.
  Result<Placement> place_preallocated(ClusterIndex first, uint64_t clusters);

  // Like place_preallocated(), for a dry run that needs only the length of the file: omits the
  // entries and counts of the clusters, and so takes one step per table rather than per cluster.
  Result<void> skip_preallocated(ClusterIndex first, uint64_t clusters);

  // Reduces the size of the disk.  All placed clusters must be within the new size.
  Result<void> shrink_to(uint64_t size);

  // Snapshots.  After the active disk, each snapshot is built in the same way: begin_snapshot(),
  // its clusters, begin_vm_state(), the clusters of its VM state.

  // Prepares for snapshots, before the first cluster is placed.  `sharing` must outlive the
  // builder, and `out` must be readable.  An error with an external data file.
  Result<void> carry(Sharing& sharing);

  // Ends the preceding state, and begins the next snapshot.  Of `snapshot`, only the place of the
  // L1 table is ignored.  The caller places the clusters for which Sharing::first_with() is the
  // state itself; the builder adds the others.
  Result<void> begin_snapshot(const Snapshot& snapshot);
  // Ends the disk of the snapshot.  Then cluster 0 is the start of its VM state.
  Result<void> begin_vm_state();

  // Writes the remaining metadata, the header last.  Does not flush.  All guest data must have been
  // written.
  Result<void> finish();

  const Geometry& geometry() const;
  const BuildCounts& counts() const;

  // Returns the maximum bytes of metadata of an image with `clusters` host clusters of guest data.
  // Does not include L2 tables that only zero clusters need.
  static uint64_t metadata_bytes(const BuildOptions& options, uint64_t clusters);

 private:
  class Impl;
  explicit Builder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vc::qcow2
