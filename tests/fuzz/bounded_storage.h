// Storage in memory with a bounded size, for any offset that a hostile image uses.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/memory_storage.h"

namespace vc::fuzz {

class BoundedStorage final : public Storage {
 public:
  static constexpr uint64_t kMost = 32 << 20;

  BoundedStorage(const uint8_t* data, size_t size)
      : memory_("fuzz", std::vector<std::byte>(reinterpret_cast<const std::byte*>(data),
                                               reinterpret_cast<const std::byte*>(data) + size)) {}

  const std::string& name() const override { return memory_.name(); }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override {
    return memory_.read(at, to);
  }
  Result<void> write(HostOffset at, std::span<const std::byte> from) override {
    if (at.value() > kMost || from.size() > kMost - at.value()) return full();
    return memory_.write(at, from);
  }
  Result<void> flush() override { return {}; }
  Result<uint64_t> size() const override { return memory_.size(); }
  Result<void> resize(uint64_t size) override {
    return size > kMost ? full() : memory_.resize(size);
  }
  Result<Run> run_at(HostOffset at, uint64_t limit) const override {
    return memory_.run_at(at, limit);
  }
  std::vector<std::byte> bytes() const { return memory_.bytes(); }

 private:
  static Result<void> full() { return fail(Error::system(ENOSPC, "fuzz: write")); }

  qcow2::MemoryStorage memory_;
};

}  // namespace vc::fuzz
