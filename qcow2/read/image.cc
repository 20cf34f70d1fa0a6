#include "qcow2/read/image.h"

#include <fmt/format.h>

#include "crypto/encrypted_storage.h"
#include "crypto/locked_storage.h"

namespace vc::qcow2 {

Result<std::shared_ptr<Image>> Image::open(std::shared_ptr<Storage> storage, Header header,
                                           std::shared_ptr<Storage> data_file,
                                           std::shared_ptr<TableCache> cache,
                                           std::shared_ptr<const Encryption> encryption) {
  auto snapshots = read_snapshot_table(*storage, header);
  if (!snapshots) return fail(std::move(snapshots).error().with_context(storage->name()));
  return make(std::move(storage), std::move(header), std::move(data_file), std::move(cache),
              std::move(*snapshots), std::move(encryption));
}

Result<std::shared_ptr<Image>> Image::open_damaged(std::shared_ptr<Storage> storage, Header header,
                                                   std::shared_ptr<Storage> data_file,
                                                   std::shared_ptr<TableCache> cache,
                                                   std::shared_ptr<const Encryption> encryption) {
  if (header.snapshot_count > Limits::kSnapshots) header.snapshot_count = 0;
  auto snapshots = read_snapshot_table(*storage, header);
  return make(std::move(storage), std::move(header), std::move(data_file), std::move(cache),
              snapshots ? std::move(*snapshots) : std::vector<Snapshot>(), std::move(encryption));
}

std::shared_ptr<Image> Image::make(std::shared_ptr<Storage> storage, Header header,
                                   std::shared_ptr<Storage> data_file,
                                   std::shared_ptr<TableCache> cache,
                                   std::vector<Snapshot> snapshots,
                                   std::shared_ptr<const Encryption> encryption) {
  std::shared_ptr<Image> image(new Image);
  image->geometry_ = header.geometry();
  image->snapshots_ = std::move(snapshots);
  image->data_storage_ = data_file ? std::move(data_file) : storage;
  if (!encryption && header.crypt_method != CryptMethod::kNone)
    encryption = std::make_shared<Encryption>(Encryption{header.crypt_method, {}, nullptr});
  if (encryption && encryption->is_locked())
    image->data_storage_ = std::make_shared<crypto::LockedStorage>(image->data_storage_);
  else if (encryption && encryption->is_luks())
    image->data_storage_ =
        std::make_shared<crypto::EncryptedStorage>(image->data_storage_, encryption->cipher);
  image->encryption_ = std::move(encryption);
  image->storage_ = std::move(storage);
  image->header_ = std::move(header);
  image->cache_ = std::move(cache);
  return image;
}

// A new storage may get the address of this one.
Image::~Image() {
  if (cache_) cache_->drop(*storage_);
}

DecoderPool& Image::decoders() {
  static DecoderPool pool;
  return pool;
}

}  // namespace vc::qcow2
