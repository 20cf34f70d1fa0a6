// A QCOW2 image that the layer below serves, and the disks in it.
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

namespace filters {

// Thread-safe.
class DecodedImage {
 public:
  struct Disk {
    qcow2::Disk disk;
    std::string description;  // one line, for people
  };

  // An image that has a backing file or an external data file is an error: names lead nowhere below
  // a plugin.
  // `tables` holds its L1 and L2 tables, and may hold those of others, too.
  static qcow2::Result<std::shared_ptr<DecodedImage>> open(
      std::shared_ptr<qcow2::Storage> storage, std::shared_ptr<qcow2::TableCache> tables);

  const std::vector<qcow2::Snapshot>& snapshots() const { return image_->snapshots(); }
  // The size of a read that does no work twice, bytes.
  uint64_t preferred_block_size() const;

  // The disk as it is now, or as it was at the internal snapshot with this id or name.
  qcow2::Result<std::shared_ptr<Disk>> disk(const std::optional<std::string>& snapshot);

 private:
  explicit DecodedImage(std::shared_ptr<qcow2::Image> image) : image_(std::move(image)) {}

  const std::shared_ptr<qcow2::Image> image_;
  // nullptr: the disk as it is now.
  SharedValues<const qcow2::Snapshot*, Disk> disks_;
};

}  // namespace filters
