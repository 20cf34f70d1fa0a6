// A storage whose bytes are encrypted in the storage below.
#pragma once

#include <memory>
#include <string>

#include "base/mutex.h"
#include "crypto/sector_cipher.h"
#include "storage/storage.h"

namespace vc::crypto {

// Reads decrypt, writes encrypt.  The number of a sector is its offset / 512.  Thread-safe, as each
// storage is.
//
// What was never written reads as random bytes, not as zeros.
class EncryptedStorage final : public Storage {
 public:
  // Offset 0 is at `base` in the storage below, which must be a multiple of 512.
  EncryptedStorage(std::shared_ptr<Storage> below, std::shared_ptr<const SectorCipher> cipher,
                   uint64_t base = 0)
      : below_(std::move(below)), cipher_(std::move(cipher)), base_(base) {}

  const std::string& name() const override { return below_->name(); }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override;
  Result<void> write(HostOffset at, std::span<const std::byte> from) override;
  Result<void> flush() override { return below_->flush(); }
  Result<uint64_t> size() const override;
  Result<void> resize(uint64_t size) override { return below_->resize(base_ + size); }
  // Writes encrypted zeros, past the end, too: a hole would not read as zeros.
  Result<void> write_zeroes(HostOffset at, uint64_t length) override;
  void discard(HostOffset at, uint64_t length) override { below_->discard(at + base_, length); }
  // Returns data: a hole does not read as zeros.
  Result<Run> run_at(HostOffset /*at*/, uint64_t limit) const override { return Run{limit, true}; }

  const std::shared_ptr<Storage>& below() const { return below_; }

 private:
  Result<size_t> read_sectors(uint64_t begin, std::span<std::byte> to) const;
  Result<void> write_sectors(uint64_t begin, std::span<std::byte> from);
  Result<void> write_part(uint64_t at, std::span<const std::byte> from);

  const std::shared_ptr<Storage> below_;
  const std::shared_ptr<const SectorCipher> cipher_;
  const uint64_t base_;
  // A write that changes a part of a sector holds it exclusively, since it writes the old rest of
  // the sector again; other writes hold it shared.
  SharedMutex sectors_;
};

}  // namespace vc::crypto
