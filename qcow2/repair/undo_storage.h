// Storage whose writes can be undone: an undo file stores the old data first.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "qcow2/repair/undo_file.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Keeps writes in memory until flush (), which adds the old data to the undo file, flushes that
// file, and only then writes to the image and flushes it.  Reads see pending writes.
class UndoStorage final : public Storage {
 public:
  // An empty `undo_path` means no undo file, for a dry run's image.
  //
  // The first flush with a write creates the undo file.  If that flush fails before it writes to
  // the image, the undo file is removed again.
  UndoStorage(std::shared_ptr<Storage> image, std::string undo_path)
      : image_(std::move(image)), undo_path_(std::move(undo_path)) {}

  const std::string& name() const override { return image_->name(); }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  Result<void> flush() override;
  Result<uint64_t> size() const override;
  // Always fails: only writes change the length.
  Result<void> resize(uint64_t size) override;
  Result<Run> run_at(HostOffset at, uint64_t limit) const override;

  // Zeroes an unreferenced range and deallocates its blocks in the filesystem.  All writes must be
  // flushed.  Adds the old data to the undo file first; returns false without a change if that file
  // has no space.
  Result<bool> deallocate(HostOffset at, uint64_t length);
  // Truncates the image; the truncated part must have been passed to deallocate() before.
  Result<bool> truncate(uint64_t size);

  // Completes the undo file; no writes may follow.
  Result<void> finish();

  // Returns whether anything was written to the image and can be undone.
  bool has_written() const {
    const MutexLock lock(mutex_);
    return has_written_;
  }

 private:
  Result<void> remember(uint64_t size) REQUIRES(mutex_);
  Result<bool> keep(const Result<void>& added) REQUIRES(mutex_);

  const std::shared_ptr<Storage> image_;
  const std::string undo_path_;
  mutable Mutex mutex_;
  std::unique_ptr<UndoFile> undo_ GUARDED_BY(mutex_);
  bool has_written_ GUARDED_BY(mutex_) = false;
  // Pending writes by offset, without overlap.
  std::map<uint64_t, std::vector<std::byte>> pending_ GUARDED_BY(mutex_);
};

}  // namespace vc::qcow2
