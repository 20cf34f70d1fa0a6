#include "crypto/encrypted_storage.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace vc::crypto {

namespace {

constexpr uint64_t kSector = SectorCipher::kSectorSize;
// Bytes to encrypt at once.
constexpr uint64_t kPiece = 1 << 20;

constexpr uint64_t down(uint64_t at) {
  return at / kSector * kSector;
}

}  // namespace

// Decrypts the whole sectors that were read.  Returns the bytes of those; an incomplete sector at
// the end of the file was never encrypted.
Result<size_t> EncryptedStorage::read_sectors(uint64_t begin, std::span<std::byte> to) const {
  ASSIGN_OR_RETURN(const size_t got, below_->read(HostOffset(base_ + begin), to));
  const size_t whole = down(got);
  RETURN_IF_ERROR(cipher_->decrypt(begin / kSector, to.first(whole)));
  return whole;
}

Result<uint64_t> EncryptedStorage::size() const {
  ASSIGN_OR_RETURN(const uint64_t size, below_->size());
  return size - std::min(size, base_);
}

Result<size_t> EncryptedStorage::read(HostOffset at, std::span<std::byte> to) const {
  size_t done = 0;
  std::array<std::byte, kSector> sector{};
  while (done < to.size()) {
    const uint64_t position = at.value() + done;
    const uint64_t skip = position % kSector;
    const uint64_t left = to.size() - done;
    if (skip == 0 && left >= kSector) {
      ASSIGN_OR_RETURN(const size_t got, read_sectors(position, to.subspan(done, down(left))));
      done += got;
      if (got < down(left)) break;
      continue;
    }
    ASSIGN_OR_RETURN(const size_t got, read_sectors(position - skip, sector));
    if (got == 0) break;
    const size_t wanted = std::min(left, kSector - skip);
    std::memcpy(to.data() + done, sector.data() + skip, wanted);
    done += wanted;
  }
  return done;
}

Result<void> EncryptedStorage::write_sectors(uint64_t begin, std::span<std::byte> from) {
  RETURN_IF_ERROR(cipher_->encrypt(begin / kSector, from));
  return below_->write(HostOffset(base_ + begin), from);
}

// Writes a part of one sector.
Result<void> EncryptedStorage::write_part(uint64_t at, std::span<const std::byte> from) {
  std::array<std::byte, kSector> sector{};
  const ExclusiveLock lock(sectors_);
  RETURN_IF_ERROR(read_sectors(down(at), sector));
  std::memcpy(sector.data() + at % kSector, from.data(), from.size());
  return write_sectors(down(at), sector);
}

Result<void> EncryptedStorage::write(HostOffset at, std::span<const std::byte> from) {
  std::vector<std::byte> buffer;
  for (uint64_t position = at.value(); !from.empty();) {
    const uint64_t skip = position % kSector;
    uint64_t length = std::min<uint64_t>(from.size(), kSector - skip);
    if (skip == 0 && from.size() >= kSector) {
      length = std::min(down(from.size()), kPiece);
      buffer.assign(from.begin(), from.begin() + static_cast<ptrdiff_t>(length));
      const SharedLock lock(sectors_);
      RETURN_IF_ERROR(write_sectors(position, buffer));
    } else {
      RETURN_IF_ERROR(write_part(position, from.first(length)));
    }
    position += length;
    from = from.subspan(length);
  }
  return {};
}

Result<void> EncryptedStorage::write_zeroes(HostOffset at, uint64_t length) {
  const std::vector<std::byte> zeros(std::min(length, kPiece));
  for (uint64_t done = 0; done < length; done += kPiece)
    RETURN_IF_ERROR(write(at + done, std::span(zeros).first(std::min(length - done, kPiece))));
  return {};
}

}  // namespace vc::crypto
