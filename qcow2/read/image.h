// An open QCOW2 file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/format/decoder_pool.h"
#include "qcow2/format/encryption.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/header.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/layer.h"
#include "qcow2/read/table_cache.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// The state that a disk and its snapshots share: file, header, snapshots and caches.
class Image {
 public:
  // `data_file` is the external data file if the header requires one, else nullptr.
  //
  // `encryption` is that of an encrypted image.  Without it, such an image is locked: reads and
  // writes of its data are errors.
  //
  // Tables of the image stay in `cache` until the image is destroyed.
  static Result<std::shared_ptr<Image>> open(
      std::shared_ptr<Storage> storage, Header header, std::shared_ptr<Storage> data_file,
      std::shared_ptr<TableCache> cache, std::shared_ptr<const Encryption> encryption = nullptr);
  // Like open(), for a damaged image: without snapshots if their table is unreadable.
  static Result<std::shared_ptr<Image>> open_damaged(
      std::shared_ptr<Storage> storage, Header header, std::shared_ptr<Storage> data_file,
      std::shared_ptr<TableCache> cache, std::shared_ptr<const Encryption> encryption = nullptr);
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
  ~Image();

  const std::string& name() const { return storage_->name(); }
  const Storage& storage() const { return *storage_; }
  const std::shared_ptr<Storage>& shared_storage() const { return storage_; }
  // Returns the storage of guest data: the external data file, or storage ().  With LUKS, it
  // decrypts and encrypts.
  const Storage& data_storage() const { return *data_storage_; }
  const std::shared_ptr<Storage>& shared_data_storage() const { return data_storage_; }
  // Returns nullptr if the image is not encrypted.
  const std::shared_ptr<const Encryption>& encryption() const { return encryption_; }
  const Header& header() const { return header_; }
  const Geometry& geometry() const { return geometry_; }
  const std::vector<Snapshot>& snapshots() const { return snapshots_; }
  const std::shared_ptr<TableCache>& cache() const { return cache_; }
  // Returns the pool of all images in this process: threads are few, but a chain may have many
  // images.
  static DecoderPool& decoders();

  // Drops the list of snapshots, which only the top image of a chain needs.
  void drop_snapshots() { snapshots_ = {}; }

 private:
  Image() = default;
  static std::shared_ptr<Image> make(std::shared_ptr<Storage> storage, Header header,
                                     std::shared_ptr<Storage> data_file,
                                     std::shared_ptr<TableCache> cache,
                                     std::vector<Snapshot> snapshots,
                                     std::shared_ptr<const Encryption> encryption);

  std::shared_ptr<Storage> storage_;
  std::shared_ptr<Storage> data_storage_;
  std::shared_ptr<const Encryption> encryption_;
  Header header_;
  Geometry geometry_;
  std::vector<Snapshot> snapshots_;
  std::shared_ptr<TableCache> cache_;
};

}  // namespace vc::qcow2
