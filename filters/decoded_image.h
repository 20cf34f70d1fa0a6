// A QCOW2 image that the layer below serves, and its disks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "nbdkit/serving/shared_values.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"
#include "qcow2/read/table_cache.h"
#include "storage/storage.h"

namespace vc::filters {

// Thread-safe.
class DecodedImage {
 public:
  struct Disk {
    qcow2::Disk disk;
    std::string description;  // one line
  };

  // Opens the image. Returns an error if it has a backing file or an external data file, because
  // file names have no meaning below a plugin. `tables` caches L1 and L2 tables, and may be shared
  // with other images.
  static Result<std::shared_ptr<DecodedImage>> open(std::shared_ptr<Storage> storage,
                                                    std::shared_ptr<qcow2::TableCache> tables);

  const std::vector<qcow2::Snapshot>& snapshots() const { return image_->snapshots(); }
  // Returns the size of a read that decodes nothing twice, bytes.
  uint64_t preferred_block_size() const;

  // Returns the current disk, or the disk of the internal snapshot with this ID or name.
  Result<std::shared_ptr<Disk>> disk(const std::optional<std::string>& snapshot);

 private:
  explicit DecodedImage(std::shared_ptr<qcow2::Image> image) : image_(std::move(image)) {}

  const std::shared_ptr<qcow2::Image> image_;
  // Key nullptr: the current disk.
  nbdkit::SharedValues<const qcow2::Snapshot*, Disk> disks_;
};

}  // namespace vc::filters
