// Opening an image by its path, with everything behind it.
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

namespace qcow2 {

struct OpenOptions {
  // Of the top image; without it the content decides.
  std::optional<Format> format;
  // Which backing files and external data files are opened, and what an image may ask for.
  Trust trust;
  // L1 and L2 tables in memory, over the whole chain, in bytes.
  uint64_t cache_size = 32 << 20;
  // Opens the top image, and its external data file, so that open_writer () works.  Where
  // permissions or a read-only filesystem forbid that, it is opened for reading alone.
  bool writable = false;
  // No file goes through the system's page cache; see FileStorage::bypass_cache.
  bool direct = false;
  // Reads files that somebody else writes to, and lets others write to them.  Such a chain cannot
  // be written.
  bool force_share = false;
  // How a user asks for force_share, for the message that advises it; empty: not advised.
  std::string force_share_option;
  // Reads damaged images: what cannot be read reads as zeros and is added to this list.  Such a
  // chain cannot be written.  nullptr: what cannot be read is an error.
  std::shared_ptr<Losses> losses;
};

// Locks `file` for reading, as the options want it.
Result<void> lock_for_reading(FileStorage& file, const OpenOptions& options);

// An image and its backing chain.  Disks made from it keep what they need alive, and may outlive
// it.
class Chain {
 public:
  // Opens `path` and, one by one, what lies behind it.  An error names the file that it is about.
  // All files are locked for reading, for as long as somebody keeps them open.  A chain of more
  // than kMostLayers images is an error.
  static constexpr size_t kMostLayers = 200;
  static Result<Chain> open(const std::string& path, const OpenOptions& options);

  Format format() const { return top_ ? Format::kQcow2 : Format::kRaw; }
  // nullptr for a raw file.
  const std::shared_ptr<Image>& image() const { return top_; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  // Every file that was opened: the images from the top down, each before its external data file.
  const std::vector<std::shared_ptr<FileStorage>>& files() const { return files_; }

  // The backing file that was left out, as the image names it (NameRule::kLeaveOut); empty: none.
  const std::string& left_out() const { return left_out_; }

  Disk disk() const;
  // The layers of disk (), the top first.
  const std::vector<std::shared_ptr<Layer>>& layers() const { return layers_; }
  // The external data file of the top; nullptr: none.
  const std::shared_ptr<FileStorage>& data_file() const { return data_file_; }
  // Returns an error that says why the top cannot be written, if it cannot.
  Result<void> check_writable() const;
  // Locks the image and its data file.  A lock of another process is a system error, EBUSY; then
  // both keep the lock that they had.
  Result<void> lock_top(ImageClaim claim) const;
  // The disk as it was at an internal snapshot.
  Result<Disk> snapshot(std::string_view id_or_name) const;

 private:
  std::shared_ptr<Storage> storage_;  // of the top
  std::shared_ptr<Image> top_;        // nullptr: raw
  std::vector<std::shared_ptr<Layer>> layers_;
  std::vector<std::shared_ptr<FileStorage>> files_;
  std::shared_ptr<FileStorage> data_file_;  // of the top; nullptr: none
  std::optional<Error> read_only_;          // why the top cannot be written
  std::string left_out_;
  bool force_share_ = false;
  std::shared_ptr<Losses> losses_;  // nullptr: not damaged
};

// The path that a backing (or data) file name means, which stands in the image at `image_path`:
// relative names are relative to the folder of that path, as QEMU resolves them (symbolic links in
// `image_path` are not followed first).  json:{…} is understood where it names a file
// (json_name.h); names with another protocol than file: are refused.
Result<std::string> resolve_name(const std::string& image_path, const std::string& name);

}  // namespace qcow2
