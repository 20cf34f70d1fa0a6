// The data of an encrypted image without its key.
#pragma once

#include <algorithm>
#include <memory>
#include <string>

#include "storage/storage.h"

namespace vc::crypto {

// Each read and each write is an error: the bytes below are neither returned nor overwritten.
class LockedStorage final : public Storage {
 public:
  // Offset 0 is at `base` in the storage below.
  explicit LockedStorage(std::shared_ptr<Storage> below, uint64_t base = 0)
      : below_(std::move(below)), base_(base) {}

  const std::string& name() const override { return below_->name(); }
  Result<size_t> read(HostOffset /*at*/, std::span<std::byte> /*to*/) const override {
    return locked();
  }
  Result<void> write(HostOffset /*at*/, std::span<const std::byte> /*from*/) override {
    return locked();
  }
  Result<void> flush() override { return below_->flush(); }
  Result<uint64_t> size() const override {
    ASSIGN_OR_RETURN(const uint64_t size, below_->size());
    return size - std::min(size, base_);
  }
  Result<void> resize(uint64_t size) override { return below_->resize(base_ + size); }
  Result<void> write_zeroes(HostOffset /*at*/, uint64_t /*length*/) override { return locked(); }
  Result<Run> run_at(HostOffset /*at*/, uint64_t limit) const override { return Run{limit, true}; }

 private:
  Failure locked() const {
    return fail(Error::invalid(name() + ": is encrypted, and no passphrase for its data is given"));
  }

  const std::shared_ptr<Storage> below_;
  const uint64_t base_;
};

}  // namespace vc::crypto
