// Storage whose writes can be taken back: what was there before is in an undo file first.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "qcow2/repair/undo_file.h"
#include "storage/storage.h"

namespace qcow2 {

// Holds writes in memory until flush (), which puts what they overwrite into the undo file, flushes
// that, and only then writes to the image, and flushes it.  Reads see them at once.
class UndoStorage final : public Storage {
 public:
  // Without `undo_path` there is none: for an image that a dry run throws away.
  // The undo file is made with the first flush that has something to write.  When that goes wrong
  // before the image is touched, it is removed again.  Without a path there is none.
  UndoStorage(std::shared_ptr<Storage> image, std::string undo_path)
      : image_(std::move(image)), undo_path_(std::move(undo_path)) {}

  const std::string& name() const override { return image_->name(); }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  Result<void> flush() override;
  Result<uint64_t> size() const override;
  // The length changes by writing only.
  Result<void> resize(uint64_t size) override;
  Result<Run> run_at(HostOffset at, uint64_t limit) const override;

  // Zeros what nothing refers to, and gives its blocks back to the file system.  All that was
  // written must be flushed.  What it held is in the undo file first; false, and nothing is
  // changed, if that has no space for it.
  Result<bool> give_back(HostOffset at, uint64_t length);
  // Makes the image shorter; what is cut off was given back before.
  Result<bool> cut(uint64_t size);

  // Nothing more will be written: the undo file can say that it is whole.
  Result<void> finish();

  // Whether anything was written to the image, and can be taken back.
  bool has_written() const { return has_written_; }

 private:
  Result<void> remember(uint64_t size);
  Result<bool> keep(const Result<void>& added);

  const std::shared_ptr<Storage> image_;
  const std::string undo_path_;
  mutable std::mutex mutex_;
  std::unique_ptr<UndoFile> undo_;
  bool has_written_ = false;
  // Guarded by mutex_: what is to be written, by offset, without overlap.
  std::map<uint64_t, std::vector<std::byte>> pending_;
};

}  // namespace qcow2
