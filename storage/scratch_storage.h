// Changes to a storage that stay in memory: what a dry run writes to.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "storage/storage.h"

namespace qcow2 {

// Reads as `below`, but for what was written since.  Nothing of that reaches `below`, which is not
// written by others meanwhile.  All that is written is held in memory, up to kMost bytes: enough
// for the tables of an image, and more than that is an error, ENOMEM.
class ScratchStorage final : public Storage {
 public:
  static constexpr uint64_t kMost = 1 << 30;  // bytes

  static Result<std::shared_ptr<ScratchStorage>> create(std::shared_ptr<Storage> below);

  const std::string& name() const override { return below_->name(); }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  Result<void> flush() override { return {}; }
  Result<uint64_t> size() const override;
  Result<void> resize(uint64_t size) override;
  // Data, all of it: what is below is not asked.
  Result<Run> run_at(HostOffset /*at*/, uint64_t limit) const override { return Run{limit, true}; }

 private:
  using Page = std::vector<std::byte>;

  ScratchStorage(std::shared_ptr<Storage> below, uint64_t size)
      : below_(std::move(below)), size_(size), kept_(size) {}
  Result<void> read_below(uint64_t at, std::span<std::byte> to) const;
  Result<Page*> page_at(uint64_t index);

  const std::shared_ptr<Storage> below_;
  mutable std::mutex mutex_;
  // All guarded by mutex_.
  uint64_t size_;
  uint64_t kept_;  // what `below_` has from here on was cut off once
  std::map<uint64_t, Page> pages_;
};

}  // namespace qcow2
