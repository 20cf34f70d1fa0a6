#include "filters/next_storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace vc::filters {

namespace {

// nbdkit's own limit on a read.
constexpr uint64_t kMaxRequest = 64 << 20;
// Maximum bytes of one request for extents.
constexpr uint64_t kMostExtents = 1 << 30;

thread_local nbdkit_next* current = nullptr;

uint64_t largest_read(const NextStorage::Shape& shape) {
  const uint64_t said = shape.maximum != 0 ? shape.maximum : kMaxRequest;
  const uint64_t minimum = shape.minimum;
  return std::max(std::min(said, kMaxRequest) / minimum * minimum, minimum);
}

}  // namespace

NextStorage::Through::Through(nbdkit_next* next) : outer_(std::exchange(current, next)) {}

NextStorage::Through::~Through() {
  current = outer_;
}

NextStorage::NextStorage(std::string name, const Shape& shape)
    : name_(std::move(name)), shape_(shape), largest_(largest_read(shape)) {}

Result<void> NextStorage::read_piece(uint64_t at, std::span<std::byte> to) const {
  int err = 0;
  // Lengths are at most largest_.
  const auto count = static_cast<uint32_t>(to.size());
  if (current->pread(current, to.data(), count, at, 0, &err) != -1) return {};
  return fail(Error::system(err, fmt::format("reading {} bytes at {:#x} of {}", count, at, name_)));
}

Result<size_t> NextStorage::read(HostOffset at, std::span<std::byte> to) const {
  if (!current) return fail(Error::invalid(name_ + ": no connection to read it through"));
  const uint64_t begin = at.value();
  if (begin >= shape_.size) return 0;
  to = to.first(std::min<uint64_t>(to.size(), shape_.size - begin));
  const uint64_t minimum = shape_.minimum;
  std::vector<std::byte> block;

  for (size_t done = 0; done < to.size();) {
    const uint64_t from = begin + done;
    const auto rest = to.subspan(done);
    // The end of the layer counts as a block boundary.
    const bool to_the_end = from + rest.size() == shape_.size;
    if (from % minimum == 0 && (rest.size() >= minimum || to_the_end)) {
      uint64_t length = std::min<uint64_t>(rest.size(), largest_);
      if (length < rest.size() || !to_the_end) length -= length % minimum;
      RETURN_IF_ERROR(read_piece(from, rest.first(length)));
      done += length;
      continue;
    }
    // A partial block: reads the whole block.
    const uint64_t start = from - from % minimum;
    block.resize(std::min(minimum, shape_.size - start));
    RETURN_IF_ERROR(read_piece(start, block));
    const size_t length = std::min<uint64_t>(rest.size(), start + block.size() - from);
    std::memcpy(rest.data(), block.data() + (from - start), length);
    done += length;
  }
  return to.size();
}

Result<void> NextStorage::write(HostOffset /*at*/, std::span<const std::byte> /*from*/) {
  return fail(Error::system(EROFS, name_));
}

Result<void> NextStorage::flush() {
  return fail(Error::system(EROFS, name_));
}

Result<void> NextStorage::resize(uint64_t /*size*/) {
  return fail(Error::system(EROFS, name_));
}

Result<Storage::Run> NextStorage::run_at(HostOffset at, uint64_t limit) const {
  const uint64_t most = std::min(kMostExtents, shape_.size - std::min(shape_.size, at.value()));
  const uint64_t count = std::min(limit, most) / shape_.minimum * shape_.minimum;
  if (count == 0 || at.value() % shape_.minimum != 0 || !current ||
      current->can_extents(current) != 1)
    return Run{limit, true};
  const auto failed = [&](int errnum) {
    return fail(Error::system(errnum, fmt::format("{}: extents at {:#x}", name_, at.value())));
  };
  const std::unique_ptr<nbdkit_extents, void (*)(nbdkit_extents*)> list(
      nbdkit_extents_new(at.value(), at.value() + count), nbdkit_extents_free);
  if (!list) return failed(errno);
  int err = 0;
  if (current->extents(current, static_cast<uint32_t>(count), at.value(), 0, list.get(), &err) ==
      -1)
    return failed(err);
  // The extents may cover only the first part of the range.
  Run run{0, true};
  for (size_t i = 0; i < nbdkit_extents_count(list.get()) && run.length < count; ++i) {
    const nbdkit_extent extent = nbdkit_get_extent(list.get(), i);
    const bool data = (extent.type & NBDKIT_EXTENT_ZERO) == 0;
    if (i == 0)
      run.data = data;
    else if (data != run.data)
      break;
    run.length += extent.length;
  }
  if (run.length == 0) return Run{limit, true};
  run.length = std::min(run.length, limit);
  return run;
}

}  // namespace vc::filters
