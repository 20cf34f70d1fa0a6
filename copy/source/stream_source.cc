#include "copy/source/stream_source.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/poll_interval.h"
#include "base/rounding.h"
#include "copy/source/chunk_feed.h"
#include "qcow2/format/compressed_file.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/header.h"

namespace vc::copy {

using qcow2::Extent;

namespace {

// Bytes needed to detect an image format.
constexpr size_t kProbeSize = 512;

}  // namespace

Result<std::unique_ptr<StreamSource>> StreamSource::open(int fd, std::string name, bool any_content,
                                                         const Stop& stop) {
  std::unique_ptr<StreamSource> source(new StreamSource(fd, std::move(name), stop));

  if (any_content) return source;
  source->start_.resize(kProbeSize);
  ASSIGN_OR_RETURN(const size_t got, source->read_some(source->start_));
  source->start_.resize(got);
  if (const auto* const it = qcow2::find_compressor(source->start_))
    return fail(Error::invalid(
        fmt::format("{}: the input is compressed with {}: decompress it in the pipe (… | {} | …), "
                    "or use -f raw if the disk really has this content",
                    source->name_, it->name, it->to_stdout)));
  if (!qcow2::has_magic(source->start_)) return source;
  return fail(
      Error::invalid(source->name_ +
                     ": the input is a QCOW2 image, which cannot be read from a pipe: give its "
                     "path, or use -f raw if the disk really has this content"));
}

// Reads until `to` is full. Returns fewer bytes only at the end of the stream.
Result<size_t> StreamSource::read_some(std::span<std::byte> to) {
  size_t done = 0;
  while (done < to.size()) {
    pollfd readable{fd_, POLLIN, 0};
    const int ready = ::poll(&readable, 1, static_cast<int>(kPollInterval.count()));
    if (stop_.requested()) return fail(Error::cancelled());
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    const ssize_t got = ::read(fd_, to.data() + done, to.size() - done);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return fail(Error::system(errno, name_ + ": read"));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Result<void> StreamSource::map(GuestOffset at, uint64_t length, std::vector<Extent>& out) {
  Extent extent;
  extent.guest = at;
  extent.length = length;
  extent.kind = qcow2::ExtentKind::kData;
  out.push_back(extent);
  return {};
}

Result<void> StreamSource::read(GuestOffset at, std::span<std::byte> to) {
  if (at.value() + to.size() > start_.size()) return fail(Error::system(ESPIPE, name_ + ": read"));
  std::copy_n(start_.begin() + static_cast<ptrdiff_t>(at.value()), to.size(), to.begin());
  return {};
}

Result<bool> StreamSource::fill(Chunk& chunk, const qcow2::Geometry& geometry) {
  const uint64_t wanted = chunk.end() - chunk.begin();
  const auto bytes = chunk.bytes.span().first(wanted);
  const size_t known = std::min<size_t>(start_.size(), wanted);
  std::copy_n(start_.begin(), known, bytes.begin());
  start_.erase(start_.begin(), start_.begin() + static_cast<ptrdiff_t>(known));
  ASSIGN_OR_RETURN(const size_t got, read_some(bytes.subspan(known)));
  const uint64_t length = known + got;
  if (length == wanted) return true;

  constexpr uint64_t kSector = qcow2::Geometry::kSectorSize;
  const uint64_t sectors = round_up(length, kSector);
  size_ = chunk.begin().value() + sectors;
  chunk.clusters.resize(geometry.clusters_for(sectors));
  // Zeroes the rest of the last cluster.
  const uint64_t allocated = chunk.clusters.size() << geometry.cluster_bits();
  std::memset(chunk.bytes.data() + length, 0, allocated - length);
  Extent& extent = chunk.extents.front();
  chunk.extents.resize(1);
  extent.length = sectors;
  return false;
}

Result<void> StreamSource::fetch(size_t /*index*/, ChunkFeed& feed, const qcow2::Geometry& geometry,
                                 Fetched& fetched) {
  for (bool more = true; more;) {
    ASSIGN_OR_RETURN(Chunk* const chunk, feed.next(ChunkFeed::Wait::kYes));
    if (!chunk) return {};
    prepare(*chunk, geometry);
    ASSIGN_OR_RETURN(more, fill(*chunk, geometry));
    if (chunk->clusters.empty())
      feed.recycle(chunk);
    else
      fetched.push(chunk);
  }
  return {};
}

}  // namespace vc::copy
