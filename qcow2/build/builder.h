// Lays out a fresh QCOW2 image, append-only and in guest order.
//
// The builder decides where everything goes and writes the metadata; the bytes of the guest are
// written by the caller, at the offsets that it is given, whenever and from whatever thread it
// likes before finish ().  So the same calls make the same layout, however the writing is spread.
//
// The file, in clusters; R is the number of clusters that one refcount block counts:
//
//     0           header (written last)
//     1 …         guest data, and each L2 table right behind the data that it maps
//     k * R - 1   a refcount block for the R clusters that end with it, k = 1, 2, …
//     … end       the last L2 table, the L1 table, the refcount table, the last refcount blocks
//
// A refcount block that ends its range can be written once and for all when the range is full, so
// memory holds one L2 table, one refcount block, the L1 table and the refcount table, however large
// the image.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "qcow2/format/build_options.h"
#include "qcow2/format/geometry.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace qcow2 {

struct BuildCounts {
  uint64_t data_clusters = 0;
  uint64_t compressed_clusters = 0;
  uint64_t compressed_bytes = 0;
  uint64_t zero_clusters = 0;  // explicit zero entries, not what was left out
  uint64_t preallocated_clusters = 0;
  uint64_t file_size = 0;  // bytes; valid after finish ()
};

// Not thread-safe: the caller puts clusters in order, and so has a lock (or one thread) for it.
class Builder {
 public:
  // What becomes of bytes of the file that nobody writes, because they do not matter.
  enum class Gaps {
    kLeave,    // they are holes
    kUnknown,  // they hold whatever was there: a block device
    kZero,  // write_zeroes (): so every byte but the header's cluster is written, or zeroed, once
  };
  // `out` is empty and outlives the builder.  An error if the options contradict each other or the
  // disk is too large for them, in words for the user.
  static Result<std::unique_ptr<Builder>> create(Storage& out, const BuildOptions& options,
                                                 Gaps gaps = Gaps::kLeave);
  ~Builder();

  // Guest clusters come in strictly ascending order; those that never come read as zeros (or as the
  // backing file, if there is one).

  struct Placement {
    HostOffset host;
    uint64_t clusters;  // at least 1, how many of those asked for are contiguous at `host`
  };
  // It is an error to go backwards or past the disk, which changes nothing, and one when the file
  // would become longer than QEMU's limit on the refcount table or the width of a host offset
  // allows: after that, or an error of the storage, the image is lost.

  // Room for up to `clusters` plain guest clusters from `first` on.  Ask again for the rest.  With
  // an external data file it is there, at the guest's own offset.
  Result<Placement> place_data(ClusterIndex first, uint64_t clusters);

  // Room for one compressed cluster of `length` bytes, 0 < length < cluster size.  Streams are
  // packed to the byte, so those of neighbours may share a host cluster, and one may cross into the
  // next; a short one may go to a gap a little before, that plain clusters or a table have left.
  Result<HostOffset> place_compressed(ClusterIndex cluster, uint64_t length);

  // `clusters` guest clusters from `first` on that must read as zeros whatever the backing file
  // says.  Version 3 only.
  Result<void> place_zero(ClusterIndex first, uint64_t clusters);

  // The same for clusters that read as zeros and have a place all the same, which is not written:
  // whoever writes to the disk finds it there.
  Result<Placement> place_preallocated(ClusterIndex first, uint64_t clusters);

  // The same in a dry run, of which only the length of the file is of use: leaves entries and
  // counts of these clusters out, and so takes a step for each table rather than for each cluster.
  Result<void> skip_preallocated(ClusterIndex first, uint64_t clusters);

  // The disk turns out to be smaller than was said at first.  All that was placed lies within it.
  Result<void> shrink_to(uint64_t size);

  // Writes what is left of the metadata, the header last.  Does not flush.  All guest data must
  // have been written.
  Result<void> finish();

  const Geometry& geometry() const;
  const BuildCounts& counts() const;

  // Bytes of metadata that an image with `clusters` host clusters of guest data needs at most; L2
  // tables that only zero clusters need come on top.
  static uint64_t metadata_bytes(const BuildOptions& options, uint64_t clusters);

 private:
  class Impl;
  explicit Builder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace qcow2
