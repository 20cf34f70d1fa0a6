// Creates, deletes and applies the internal snapshots of an image that nobody else uses (QCOW2
// text, "Snapshots").
//
// What a crash leaves behind, at any moment: the image as it was or as it was to be. The one write
// that decides lies within a sector of the header:
//
//   create   counts go up | COPIED is cleared | the new tables | HEADER: the table of snapshots
//   delete   the new table of snapshots | HEADER: that table | counts go down
//   apply    counts go up | the new L1 table | HEADER: L1 table and size | counts go down
//
// with a flush at each bar.  So counts are never lower than the references in the file, and what a
// crash leaves too high, and COPIED where it is not due, harms no data; in version 3 the image is
// marked dirty meanwhile, so that whoever opens it next mends that (recount.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "qcow2/read/chain.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/refcounts/references.h"
#include "storage/storage.h"

namespace qcow2 {

// Not thread-safe.  An operation that fails leaves the image as it was, but for clusters that may
// have leaked, and is the last one: the editor is of no use then.
class SnapshotEditor {
 public:
  struct Time {
    uint32_t seconds = 0;  // since the epoch
    uint32_t nanoseconds = 0;
  };

  // `chain` was opened writable; its top is locked for writing from now on.  Mends an image that is
  // marked dirty.  Refuses an external data file, as QEMU does: its clusters cannot be shared.
  static Result<std::unique_ptr<SnapshotEditor>> open(const Chain& chain);
  // The same for storage that is nobody else's.
  static Result<std::unique_ptr<SnapshotEditor>> open(std::shared_ptr<Storage> storage);

  // Called while an operation goes on: `done` of about `total` bytes of tables are looked at.
  using Progress = std::function<void(uint64_t done, uint64_t total)>;
  void set_progress(Progress progress) { progress_ = std::move(progress); }

  const std::vector<Snapshot>& snapshots() const { return image_->snapshots(); }

  // Bytes of the clusters that are in use at the moment, and that were when it was opened.
  Result<uint64_t> used() const;
  uint64_t used_before() const { return used_before_ << image_->geometry().cluster_bits(); }

  // Keeps the disk as it is now under `name`.  Returns the id that it gets.  An error, before
  // anything has changed, if refcounts are too narrow for one more reference.
  Result<std::string> create(const std::string& name, Time now);

  // By name, else by id, as qemu-img does.
  Result<void> remove(std::string_view id_or_name);

  // By id, else by name.  The disk becomes what it was at that snapshot, its size, too.  What it is
  // now is lost.  Bitmaps of changes lose their meaning and are given up.
  Result<void> apply(std::string_view id_or_name);

  // Gives back what is free: holes are punched, and the file ends where its last cluster does,
  // which moves down into holes if that makes it clearly shorter.
  Result<void> close();

 private:
  explicit SnapshotEditor(std::shared_ptr<Storage> storage) : storage_(std::move(storage)) {}

  void begin(unsigned passes);
  Result<void> reload();
  Result<const Snapshot*> find(std::string_view id_or_name) const;
  Result<void> mark_dirty(bool dirty);
  Result<void> check_room(const References& references) const;
  Result<void> raise_run(HostCluster first, uint64_t count, uint64_t times);
  Result<void> raise(const References& references);
  Result<void> clear_copied();
  Result<HostOffset> write_table(const std::vector<std::byte>& bytes);
  Result<void> put_snapshots(const std::vector<Snapshot>& snapshots);
  Result<void> drop_table(HostOffset at, uint64_t bytes);
  Result<void> settle();
  Result<void> undo(Result<void> result, const std::function<bool()>& happened,
                    const std::string& state);
  Result<std::vector<std::byte>> l1_without_copied(HostOffset at, uint64_t entries) const;
  Result<void> create_as(Snapshot snapshot);
  Result<void> apply_as(const Snapshot& snapshot);

  std::shared_ptr<Storage> storage_;
  std::shared_ptr<Image> image_;  // as the header says at the moment
  std::unique_ptr<Refcounts> refcounts_;
  Progress progress_;
  References::TableDone table_done_;
  uint64_t used_before_ = 0;  // clusters, when it was opened
};

}  // namespace qcow2
