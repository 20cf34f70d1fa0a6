// Replaces the content of persistent bitmaps, with a new directory, in one step.
//
//     tables and data of the bitmaps, directory, refcounts | HEADER: offset of the directory
//
// with a flush at the bar.  The offset is one aligned write of 8 bytes: a crash leaves the old
// directory or the new one, both complete, and at most leaks clusters.  Extra data of entries, and
// entries that stay, are copied.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/cluster_run.h"
#include "qcow2/format/geometry.h"
#include "qcow2/refcounts/refcounts.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Memory: a table of a bitmap, the directory, and a cluster of bits.  Not thread-safe.
class BitmapRewrite {
 public:
  // Changes the bits from `first_bit` on of a bitmap, a cluster or less.
  using Change = std::function<void(std::span<std::byte> bits, uint64_t first_bit)>;

  // `refcounts` must outlive the object.
  BitmapRewrite(std::shared_ptr<Storage> storage, const Geometry& geometry,
                BitmapDirectory directory, Refcounts& refcounts)
      : storage_(std::move(storage)),
        geometry_(geometry),
        directory_(std::move(directory)),
        refcounts_(refcounts) {}

  // Reads the directory.  Must be called first.
  Result<void> begin();

  // Writes the content of the bitmap `index`, for a disk of `disk_size` bytes: its bits, as
  // `change` changes them.  What it had not covered reads as zeros.  In the new directory it is not
  // in use.
  Result<void> add(size_t index, uint64_t disk_size, const Change& change);

  // Writes the new directory.  The caller must then write the refcounts, and flush.
  Result<void> write_directory();

  // Makes the header point to the new directory, and flushes.
  Result<void> switch_over();

  // Returns the clusters that lose a reference after switch_over ().
  const std::vector<ClusterRun>& replaced() const { return replaced_; }

  // Frees the new clusters, before switch_over ().
  Result<void> abandon();

 private:
  Result<HostOffset> put(std::span<const std::byte> bytes);
  Result<uint64_t> entry_for(std::span<const std::byte> bits, uint64_t count);

  const std::shared_ptr<Storage> storage_;
  const Geometry geometry_;
  const BitmapDirectory directory_;
  Refcounts& refcounts_;
  std::vector<std::byte> bytes_;  // of the new directory
  HostOffset at_;                 // its place
  std::vector<ClusterRun> written_;
  std::vector<ClusterRun> replaced_;
};

}  // namespace vc::qcow2
