// A QCOW2 image seen through one of its L1 tables: the active one, or a snapshot's.
#pragma once

#include <memory>
#include <vector>

#include "qcow2/format/l2_entry.h"
#include "qcow2/read/cluster_map.h"
#include "qcow2/read/image.h"
#include "qcow2/read/layer.h"

namespace qcow2 {

// All of it may be called from many threads: a mapping is decided under the map's lock (if it can
// change at all), and I/O and decoding happen with no lock held.
class Qcow2Layer final : public Layer {
 public:
  // `size`: of the disk that `map` maps, bytes.
  Qcow2Layer(std::shared_ptr<Image> image, std::shared_ptr<ClusterMap> map, uint64_t size)
      : image_(std::move(image)), map_(std::move(map)), size_(size) {}

  // The L1 table must lie within the file.
  static Result<std::shared_ptr<Layer>> open(std::shared_ptr<Image> image, HostOffset l1_table,
                                             uint32_t l1_entries, uint64_t size);

  const std::string& name() const override { return image_->name(); }
  const char* format() const override { return "qcow2"; }
  uint64_t size() const override { return size_; }
  std::optional<Compression> compression() const override;
  Result<Extent> map(GuestOffset at, uint64_t limit) const override;
  Result<void> read(const Extent& extent, GuestOffset at, std::span<std::byte> to) const override;
  const std::shared_ptr<Image>& image() const { return image_; }
  const Storage* cluster_storage() const override { return &image_->data_storage(); }
  Result<size_t> read_stream(const Extent& extent, std::span<std::byte> to) const override;

  // What one subcluster (without extended L2: one cluster) is, and where.
  struct Mapping {
    ExtentKind kind;
    bool preallocated;
    HostOffset host;  // of the cluster's first byte; of the stream when compressed
    uint64_t compressed_length;
  };
  // What an entry says of a subcluster; an error if it is invalid.
  Result<Mapping> decode(L2Entry entry, ClusterIndex cluster, unsigned subcluster) const;

 private:
  Result<void> read_data(const Extent& extent, GuestOffset at, std::span<std::byte> to) const;
  Result<void> read_compressed(const Extent& extent, GuestOffset at, std::span<std::byte> to) const;
  Failure corrupt(std::string message) const;
  Failure table_failure(Error error, uint64_t l1_index, HostOffset table, GuestOffset at) const;

  std::shared_ptr<Image> image_;
  std::shared_ptr<ClusterMap> map_;
  uint64_t size_;
};

// Returns the disk of an image as it is now, and as it was at one of its snapshots, as a layer of a
// chain.
Result<std::shared_ptr<Layer>> open_active_layer(const std::shared_ptr<Image>& image);
Result<std::shared_ptr<Layer>> open_snapshot_layer(const std::shared_ptr<Image>& image,
                                                   const Snapshot& snapshot);

}  // namespace qcow2
