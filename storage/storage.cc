#include "storage/storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace vc {

Result<void> Storage::write_vector(HostOffset at, std::span<iovec> pieces) {
  for (const iovec& piece : pieces) {
    RETURN_IF_ERROR(write(at, {static_cast<const std::byte*>(piece.iov_base), piece.iov_len}));
    at += piece.iov_len;
  }
  return {};
}

Result<void> Storage::write_zeroes(HostOffset at, uint64_t length) {
  ASSIGN_OR_RETURN(const uint64_t end, size());
  if (at.value() >= end) return {};
  length = std::min(length, end - at.value());
  const std::vector<std::byte> zeros(std::min<uint64_t>(length, 1 << 20));
  for (uint64_t done = 0; done < length;) {
    const uint64_t part = std::min<uint64_t>(zeros.size(), length - done);
    RETURN_IF_ERROR(write(at + done, std::span(zeros).first(part)));
    done += part;
  }
  return {};
}

Result<void> read_fully(const Storage& storage, HostOffset at, std::span<std::byte> to) {
  ASSIGN_OR_RETURN(const size_t got, storage.read(at, to));
  if (got != to.size())
    return fail(Error::corrupt(fmt::format("the file ends at {:#x}, within the {} bytes at {:#x}",
                                           at.value() + got, to.size(), at.value())));
  return {};
}

}  // namespace vc
