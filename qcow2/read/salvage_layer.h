// A layer of a damaged image: unreadable ranges read as zeros, and are added to a list of losses.
//
// This class reads tables, sector by sector where necessary, so that a bad sector costs only what
// its entries map.  The layer of a good image reads data; if that fails, the range is read again in
// pieces of 4 KiB, so that each byte is tried at most twice.
//
// An entry with reserved bits set was overwritten: it is lost, even if its offset is valid.  Tables
// of zeros are lost if a check says so (lost_references.h), or if a check is impossible.
#pragma once

#include <memory>
#include <vector>

#include "base/mutex.h"
#include "qcow2/read/layer.h"
#include "qcow2/read/lenient_reader.h"
#include "qcow2/read/losses.h"
#include "qcow2/read/qcow2_layer.h"

namespace vc::qcow2 {

// Reads any layer; unreadable ranges read as zeros.  Thread-safe.
class SalvageLayer : public Layer {
 public:
  SalvageLayer(std::shared_ptr<Layer> inner, std::shared_ptr<Losses> losses)
      : inner_(std::move(inner)), losses_(std::move(losses)) {}

  const std::string& name() const override { return inner_->name(); }
  const char* format() const override { return inner_->format(); }
  uint64_t size() const override { return inner_->size(); }
  std::optional<StreamFormat> compression() const override { return inner_->compression(); }
  Result<Extent> map(GuestOffset at, uint64_t limit) const override {
    return inner_->map(at, limit);
  }
  Result<void> read(const Extent& extent, GuestOffset at, std::span<std::byte> to) const override;
  const Storage* cluster_storage() const override { return inner_->cluster_storage(); }
  Result<size_t> read_stream(const Extent& extent, std::span<std::byte> to) const override {
    return inner_->read_stream(extent, to);
  }

 protected:
  Losses& losses() const { return *losses_; }

 private:
  void read_pieces(const Extent& extent, GuestOffset at, std::span<std::byte> to) const;
  void tell_missing_tail(const Extent& extent, GuestOffset at, uint64_t length) const;

  const std::shared_ptr<Layer> inner_;
  const std::shared_ptr<Losses> losses_;
};

// A QCOW2 image through one of its L1 tables.
class Qcow2SalvageLayer final : public SalvageLayer {
 public:
  // `snapshot` is the snapshot of the L1 table, as an index of the snapshot table; Finding::kActive
  // is the active disk.  Checks the image to find overwritten tables.
  static Result<std::shared_ptr<Layer>> open(std::shared_ptr<Image> image, HostOffset l1_table,
                                             uint32_t l1_entries, uint64_t size, uint32_t snapshot,
                                             std::shared_ptr<Losses> losses);

  Result<Extent> map(GuestOffset at, uint64_t limit) const override;

 private:
  Qcow2SalvageLayer(std::shared_ptr<Qcow2Layer> inner, std::shared_ptr<Losses> losses,
                    HostOffset l1_table, uint32_t l1_entries, bool active);

  void find_overwritten_tables(uint32_t snapshot);
  // The extent of the tables at `at`, at most `limit` bytes; for a lost range, the reason.
  struct Answer {
    Extent extent;
    std::optional<LossReason> lost;
  };
  Answer look_up(GuestOffset at, uint64_t limit) const;
  Answer look_up_entry(HostOffset table, GuestOffset at, uint64_t limit) const REQUIRES(mutex_);
  bool is_zero_table(HostOffset table) const REQUIRES(mutex_);

  const std::shared_ptr<Qcow2Layer> qcow2_;
  const Geometry geometry_;
  const HostOffset l1_table_;
  const uint64_t l1_entries_;
  const bool active_;        // else of a snapshot, whose table may be smaller than its disk
  Losses known_;             // losses that a check found in this layer
  bool is_checked_ = false;  // else tables of zeros are lost
  mutable Mutex mutex_;
  mutable LenientReader l1_ GUARDED_BY(mutex_);
  mutable LenientReader l2_ GUARDED_BY(mutex_);
  mutable std::pair<uint64_t, bool> zero_table_ GUARDED_BY(mutex_){0, false};  // the last result
};

}  // namespace vc::qcow2
