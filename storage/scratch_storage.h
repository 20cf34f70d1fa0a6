// Keeps changes to a storage in memory, for a dry run.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "storage/storage.h"

namespace vc {

// Reads return the content of `below`, with the writes applied.  Writes never reach `below`, which
// others must not change meanwhile.  Holds at most kMost bytes of writes in memory, enough for the
// tables of an image; more is an error (ENOMEM).
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
  // Returns data for the whole range, without asking `below_`.
  Result<Run> run_at(HostOffset /*at*/, uint64_t limit) const override { return Run{limit, true}; }

 private:
  using Page = std::vector<std::byte>;

  ScratchStorage(std::shared_ptr<Storage> below, uint64_t size)
      : below_(std::move(below)), size_(size), kept_(size) {}
  Result<void> read_below(uint64_t at, std::span<std::byte> to) const REQUIRES(mutex_);
  Result<Page*> page_at(uint64_t index) REQUIRES(mutex_);

  const std::shared_ptr<Storage> below_;
  mutable Mutex mutex_;
  uint64_t size_ GUARDED_BY(mutex_);
  uint64_t kept_ GUARDED_BY(mutex_);  // bytes of `below_` from here on were truncated
  std::map<uint64_t, Page> pages_ GUARDED_BY(mutex_);
};

}  // namespace vc
