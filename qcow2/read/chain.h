// Opens an image by its path, with its backing chain.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "qcow2/format/format_probe.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"
#include "qcow2/read/losses.h"
#include "qcow2/read/trust.h"
#include "storage/file_storage.h"

namespace vc::qcow2 {

struct OpenOptions {
  // The format of the top image; nullopt: the content decides.
  std::optional<Format> format;
  // Which backing files and external data files are opened, and the limits on an image.
  Trust trust;
  // The cache for L1 and L2 tables of the whole chain, in bytes.
  uint64_t cache_size = 32 << 20;
  // Opens the top image and its external data file for open_writer ().  Opens them read-only where
  // permissions or a read-only filesystem require it.
  bool writable = false;
  // All files bypass the page cache; see FileStorage::bypass_cache.
  bool direct = false;
  // Reads files even if other processes write to them, and allows others to write.  Such a chain is
  // read-only.
  bool force_share = false;
  // The user's option for force_share, for the message that suggests it; empty: no suggestion.
  std::string force_share_option;
  // Reads damaged images: unreadable ranges read as zeros and are added to this list.  Such a chain
  // is read-only. nullptr: unreadable ranges are errors.
  std::shared_ptr<Losses> losses;
  // Opens encrypted images without a passphrase, too: reads of their data are then errors.
  bool metadata_only = false;
};

// Locks `file` for reading, as `options` require.
Result<void> lock_for_reading(FileStorage& file, const OpenOptions& options);

// An image and its backing chain.  Disks created from the chain share ownership of what they need,
// and may outlive the chain.
class Chain {
 public:
  // Opens `path` and its backing chain.  Errors name the file concerned.  Locks all files for
  // reading while they are open.  A chain of more than kMostLayers images is an error.
  static constexpr size_t kMostLayers = 200;
  static Result<Chain> open(const std::string& path, const OpenOptions& options);

  Format format() const { return format_; }
  // Returns nullptr for a raw file, encrypted or not.
  const std::shared_ptr<Image>& image() const { return top_; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  // Returns all open files: the images from the top down, each before its external data file.
  const std::vector<std::shared_ptr<FileStorage>>& files() const { return files_; }

  // Returns the encryption of each layer, the top first; nullptr: it is not encrypted.
  const std::vector<std::shared_ptr<const Encryption>>& encryptions() const { return encryptions_; }

  // Returns the name of the backing file that was left out (NameRule::kLeaveOut); empty: none.
  const std::string& left_out() const { return left_out_; }

  Disk disk() const;
  // Returns the layers of disk (), the top first.
  const std::vector<std::shared_ptr<Layer>>& layers() const { return layers_; }
  // Returns the external data file of the top; nullptr: none.
  const std::shared_ptr<FileStorage>& data_file() const { return data_file_; }
  // Returns an error with the reason if the top is not writable.
  Result<void> check_writable() const;
  // Locks the image and its data file.  A conflicting lock of another process is a system error
  // (EBUSY); both files then keep their locks.
  Result<void> lock_top(ImageClaim claim) const;
  // Returns the disk of an internal snapshot.
  Result<Disk> snapshot(std::string_view id_or_name) const;
  // `snapshot` must be one of the image.
  Result<Disk> snapshot(const Snapshot& snapshot) const;

 private:
  std::shared_ptr<Storage> storage_;  // of the top
  std::shared_ptr<Image> top_;        // nullptr: raw
  std::vector<std::shared_ptr<Layer>> layers_;
  std::vector<std::shared_ptr<const Encryption>> encryptions_;  // of layers_
  Format format_ = Format::kRaw;                                // of the top
  std::vector<std::shared_ptr<FileStorage>> files_;
  std::shared_ptr<FileStorage> data_file_;  // of the top; nullptr: none
  std::optional<Error> read_only_;          // why the top is not writable
  std::string left_out_;
  bool force_share_ = false;
  std::shared_ptr<Losses> losses_;  // nullptr: unreadable ranges are errors
};

// Returns the path for the backing (or data) file `name` in the image at `image_path`.  Relative
// names are relative to the folder of `image_path`, without following its symbolic links first, as
// in QEMU.  Accepts json:{…} names of files (json_name.h); rejects names with a protocol other than
// file:.
Result<std::string> resolve_name(const std::string& image_path, const std::string& name);

}  // namespace vc::qcow2
