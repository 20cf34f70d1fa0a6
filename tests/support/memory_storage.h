// Storage in memory, for tests and fuzzers.
#pragma once

#include <shared_mutex>
#include <string>
#include <vector>

#include "storage/storage.h"

namespace vc::qcow2 {

class MemoryStorage final : public Storage {
 public:
  explicit MemoryStorage(std::string name = "memory", std::vector<std::byte> bytes = {});

  const std::string& name() const override { return name_; }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  Result<void> flush() override { return {}; }
  Result<uint64_t> size() const override;
  Result<void> resize(uint64_t size) override;
  Result<Run> run_at(HostOffset at, uint64_t limit) const override;

  // Returns a copy of all bytes.
  std::vector<std::byte> bytes() const;

 private:
  std::string name_;
  mutable std::shared_mutex mutex_;
  std::vector<std::byte> bytes_;  // guarded by mutex_
};

}  // namespace vc::qcow2
