// Creates, deletes and applies internal snapshots of an image that no other process uses (qcow2
// specification, "Snapshots").
//
// A crash at any time leaves the old image or the new one. The deciding write is within one sector
// of the header:
//
//   create   raise refcounts | clear COPIED | new tables | HEADER: the snapshot table
//   delete   new snapshot table | HEADER: that table | lower refcounts
//   apply    raise refcounts | new L1 table | HEADER: L1 table and size | bitmaps | lower refcounts
//
// with a flush at each bar. So refcounts are never lower than the references in the file. After a
// crash, some refcounts may be too high and some COPIED flags wrong, which harms no data; and
// bitmaps may be marked in use, and therefore not valid: that is done before the disk changes. In
// version 3, the image is marked dirty meanwhile, so that the next writer repairs them
// (in_place_rebuild.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/read/chain.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/refcounts/references.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Not thread-safe.  A failed operation leaves the image as it was, except for possible leaks; after
// it the editor must not be used.
class SnapshotEditor {
 public:
  struct Time {
    uint32_t seconds = 0;  // since the epoch
    uint32_t nanoseconds = 0;
  };

  // `chain` must have been opened writable; locks its top for writing.  Repairs an image that is
  // marked dirty.  Rejects an external data file, as QEMU does: its clusters cannot be shared.
  static Result<std::unique_ptr<SnapshotEditor>> open(const Chain& chain);
  // The same for storage that no other process uses.
  static Result<std::unique_ptr<SnapshotEditor>> open(
      std::shared_ptr<Storage> storage, std::shared_ptr<const Encryption> encryption = nullptr);

  // Called during an operation: `done` of about `total` bytes of tables are processed.
  using Progress = std::function<void(uint64_t done, uint64_t total)>;
  void set_progress(Progress progress) { progress_ = std::move(progress); }

  const std::vector<Snapshot>& snapshots() const { return image_->snapshots(); }

  // Return the bytes of used clusters: now, and when the editor was opened.
  Result<uint64_t> used() const;
  uint64_t used_before() const { return used_before_ << image_->geometry().cluster_bits(); }

  // Stores the current disk under `name`, and returns the new ID.  An error without a change if a
  // refcount is too narrow for one more reference.
  Result<std::string> create(const std::string& name, Time now);

  // Deletes a snapshot by name, else by ID, as qemu-img does.
  Result<void> remove(std::string_view id_or_name);

  // Applies a snapshot by ID, else by name: the disk gets its content and size.  The current
  // content is lost.  Sets all bits of the enabled dirty bitmaps; bitmaps get the size of the disk.
  Result<void> apply(std::string_view id_or_name);

  // Deallocates free clusters: punches holes, and truncates the file after its last used cluster,
  // which moves down into holes if that makes the file clearly shorter.
  Result<void> close();

 private:
  explicit SnapshotEditor(std::shared_ptr<Storage> storage) : storage_(std::move(storage)) {}

  void begin(unsigned passes);
  Result<void> reload();
  Result<const Snapshot*> find(std::string_view id_or_name) const;
  Result<void> mark_dirty(bool dirty);
  Result<void> check_width(const References& references) const;
  Result<void> raise_run(HostCluster first, uint64_t count, uint64_t times);
  Result<void> raise(const References& references);
  Result<void> clear_copied();
  Result<HostOffset> write_table(const std::vector<std::byte>& bytes);
  Result<void> put_snapshots(const std::vector<Snapshot>& snapshots);
  Result<void> drop_table(HostOffset at, uint64_t bytes);
  Result<void> rebuild_counts();
  Result<void> undo(Result<void> result, const std::function<bool()>& happened,
                    const std::string& state);
  Result<std::vector<std::byte>> l1_without_copied(HostOffset at, uint64_t entries) const;
  Result<void> create_as(Snapshot snapshot);
  Result<void> apply_as(const Snapshot& snapshot);
  Result<void> store_bitmaps(const BitmapDirectory& directory, uint64_t disk_size);

  std::shared_ptr<Storage> storage_;
  std::shared_ptr<const Encryption> encryption_;
  std::shared_ptr<Image> image_;  // for the current header
  std::unique_ptr<Refcounts> refcounts_;
  Progress progress_;
  References::TableDone table_done_;
  uint64_t used_before_ = 0;  // used clusters when the editor was opened
};

}  // namespace vc::qcow2
