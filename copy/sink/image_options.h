// User options for a new image. Unset options follow the source.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "copy/source/source.h"
#include "crypto/luks_keys.h"
#include "crypto/secret.h"
#include "qcow2/format/build_options.h"
#include "qcow2/read/image.h"

namespace vc::copy {

enum class Preallocation {
  kOff,
  kMetadata,  // every cluster has an offset in the file, but no space
  kFalloc,    // also: the filesystem reserves the space
  kFull,      // also: zeros are written
};

const char* to_string(Preallocation preallocation);

// Whether a new image is encrypted.
struct EncryptionChoice {
  bool decrypt = false;  // data of an encrypted source is written unencrypted
  // A new LUKS header with its own key, for `passphrase`.  nullopt: as the source is.
  std::optional<crypto::LuksOptions> luks;
  std::shared_ptr<const crypto::Secret> passphrase;
};

struct ImageOptions {
  std::optional<uint32_t> version;  // 2 or 3
  std::optional<unsigned> cluster_bits;
  std::optional<unsigned> refcount_order;
  std::optional<bool> extended_l2;
  std::optional<bool> lazy_refcounts;
  // The type in the header, for later compressed writes. nullopt: the compression of this copy.
  std::optional<qcow2::CompressionType> compression_type;
  Preallocation preallocation = Preallocation::kOff;
  std::string backing_file;    // is kept; empty: none
  std::string backing_format;  // empty: the format of the file
  std::string data_file;       // external data file, name as stored in the image; empty: none
  bool data_file_raw = false;
  EncryptionChoice encryption;
};

// Returns build options. Unset options (cluster size, extended L2 entries, lazy refcounts, refcount
// width) follow the source, or else QEMU's defaults. Returns an error if the combination is
// invalid.
Result<qcow2::BuildOptions> build_options(const ImageOptions& options, const Source& source,
                                          const qcow2::Image* image,
                                          std::optional<qcow2::CompressionType> compression);

}  // namespace vc::copy
