// A file in memory with bad sectors.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "storage/storage.h"
#include "tests/support/memory_storage.h"

namespace vc::checks {

// A file in which [begin, end) cannot be read.
class BadSectors final : public Storage {
 public:
  BadSectors(std::vector<std::byte> bytes, uint64_t begin, uint64_t end)
      : memory_("bad", std::move(bytes)), begin_(begin), end_(end) {}
  const std::string& name() const override { return memory_.name(); }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override {
    if (at.value() < end_ && begin_ < at.value() + to.size()) {
      ++failed;
      return fail(Error::system(EIO, name()));
    }
    return memory_.read(at, to);
  }
  Result<void> write(HostOffset at, std::span<const std::byte> from) override {
    return memory_.write(at, from);
  }
  Result<void> flush() override { return {}; }
  Result<uint64_t> size() const override { return memory_.size(); }
  Result<void> resize(uint64_t size) override { return memory_.resize(size); }
  Result<Run> run_at(HostOffset, uint64_t limit) const override { return Run{limit, true}; }
  mutable uint64_t failed = 0;  // failed reads

 private:
  qcow2::MemoryStorage memory_;
  const uint64_t begin_, end_;
};

}  // namespace vc::checks
