// One opened QCOW2 file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/format/decoder_pool.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/header.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/layer.h"
#include "qcow2/read/table_cache.h"
#include "storage/storage.h"

namespace qcow2 {

// Everything that the disk and its snapshots share: the file, its header, snapshots and caches.
class Image {
 public:
  // `data_file` is the external data file, when the header wants one, else null.
  // Tables of the image stay in `cache` until the image is gone.
  static Result<std::shared_ptr<Image>> open(std::shared_ptr<Storage> storage, Header header,
                                             std::shared_ptr<Storage> data_file,
                                             std::shared_ptr<TableCache> cache);
  // The same for a damaged image: if its table of snapshots cannot be read it has none.
  static Result<std::shared_ptr<Image>> open_damaged(std::shared_ptr<Storage> storage,
                                                     Header header,
                                                     std::shared_ptr<Storage> data_file,
                                                     std::shared_ptr<TableCache> cache);
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
  ~Image();

  const std::string& name() const { return storage_->name(); }
  const Storage& storage() const { return *storage_; }
  const std::shared_ptr<Storage>& shared_storage() const { return storage_; }
  // Where guest data is: the external data file, or storage ().
  const Storage& data_storage() const { return *data_storage_; }
  const Header& header() const { return header_; }
  const Geometry& geometry() const { return geometry_; }
  const std::vector<Snapshot>& snapshots() const { return snapshots_; }
  const std::shared_ptr<TableCache>& cache() const { return cache_; }
  // Of all images in this process: threads are few, and the images of a chain may be many.
  static DecoderPool& decoders();

  // Drops the list of snapshots, which is of use in the top image of a chain alone.
  void drop_snapshots() { snapshots_ = {}; }

 private:
  Image() = default;
  static std::shared_ptr<Image> make(std::shared_ptr<Storage> storage, Header header,
                                     std::shared_ptr<Storage> data_file,
                                     std::shared_ptr<TableCache> cache,
                                     std::vector<Snapshot> snapshots);

  std::shared_ptr<Storage> storage_;
  std::shared_ptr<Storage> data_storage_;
  Header header_;
  Geometry geometry_;
  std::vector<Snapshot> snapshots_;
  std::shared_ptr<TableCache> cache_;
};

}  // namespace qcow2
