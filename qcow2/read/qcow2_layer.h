// A QCOW2 image through one of its L1 tables: the active one, or that of a snapshot.
#pragma once

#include <memory>
#include <vector>

#include "qcow2/format/l2_entry.h"
#include "qcow2/read/cluster_map.h"
#include "qcow2/read/image.h"
#include "qcow2/read/layer.h"

namespace vc::qcow2 {

// Thread-safe: looks up mappings under the map's lock (if the map is writable); does I/O and
// decoding without a lock.
class Qcow2Layer final : public Layer {
 public:
  // `size`: of the disk that `map` maps, bytes.
  Qcow2Layer(std::shared_ptr<Image> image, std::shared_ptr<ClusterMap> map, uint64_t size)
      : image_(std::move(image)), map_(std::move(map)), size_(size) {}

  // The L1 table must be within the file.
  static Result<std::shared_ptr<Layer>> open(std::shared_ptr<Image> image, HostOffset l1_table,
                                             uint32_t l1_entries, uint64_t size);

  const std::string& name() const override { return image_->name(); }
  const char* format() const override { return "qcow2"; }
  uint64_t size() const override { return size_; }
  std::optional<StreamFormat> compression() const override;
  Result<Extent> map(GuestOffset at, uint64_t limit) const override;
  Result<void> read(const Extent& extent, GuestOffset at, std::span<std::byte> to) const override;
  const std::shared_ptr<Image>& image() const { return image_; }
  const Storage* cluster_storage() const override {
    return image_->encryption() ? nullptr : &image_->data_storage();
  }
  const Image* qcow2_image() const override { return image_.get(); }
  Result<size_t> read_stream(const Extent& extent, std::span<std::byte> to) const override;

  // The kind and location of one subcluster (without extended L2: of one cluster).
  struct Mapping {
    ExtentKind kind;
    bool preallocated;
    HostOffset host;  // of the cluster's first byte; of the stream if compressed
    uint64_t compressed_length;
  };
  // Decodes an entry for a subcluster; an error if it is invalid.
  Result<Mapping> decode(L2Entry entry, ClusterIndex cluster, unsigned subcluster) const;

 private:
  Result<void> read_data(const Extent& extent, GuestOffset at, std::span<std::byte> to) const;
  Result<void> read_encrypted(const Extent& extent, GuestOffset at, std::span<std::byte> to) const;
  Result<void> read_stored(HostOffset host, GuestOffset at, std::span<std::byte> to) const;
  Result<void> read_compressed(const Extent& extent, GuestOffset at, std::span<std::byte> to) const;
  Failure corrupt(std::string message) const;
  Failure table_failure(Error error, uint64_t l1_index, HostOffset table, GuestOffset at) const;

  std::shared_ptr<Image> image_;
  std::shared_ptr<ClusterMap> map_;
  uint64_t size_;
};

// Return the active disk, and the disk of a snapshot, as a layer of a chain.
Result<std::shared_ptr<Layer>> open_active_layer(const std::shared_ptr<Image>& image);
Result<std::shared_ptr<Layer>> open_snapshot_layer(const std::shared_ptr<Image>& image,
                                                   const Snapshot& snapshot);

}  // namespace vc::qcow2
