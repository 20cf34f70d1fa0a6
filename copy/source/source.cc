#include "copy/source/source.h"

#include <cerrno>

namespace vc::copy {

using qcow2::Extent;

Result<void> Source::fetch(size_t /*index*/, ChunkFeed& /*feed*/,
                           const qcow2::Geometry& /*geometry*/, Fetched& /*fetched*/) {
  return fail(Error::system(ENOTSUP, name() + ": fetch"));
}

Result<void> Source::load(Chunk& chunk, ClusterReader& /*reader*/) {
  const GuestOffset begin = chunk.begin();
  for (const Extent& extent : chunk.extents)
    if (!extent.reads_as_zero())
      RETURN_IF_ERROR(
          read(extent.guest, chunk.bytes.span().subspan(extent.guest - begin, extent.length)));
  return {};
}

Result<void> Source::read_extent(size_t /*index*/, const Extent& extent, std::span<std::byte> to) {
  return read(extent.guest, to);
}

Result<void> Source::map_stored(GuestOffset at, uint64_t length, std::vector<Extent>& out) {
  const size_t first = out.size();
  RETURN_IF_ERROR(map(at, length, out));
  for (size_t i = first; i < out.size(); ++i) out[i].host = HostOffset(out[i].guest.value());
  return {};
}

Result<std::string> Source::keep_backing(const std::string& /*base*/, uint64_t /*unit*/) {
  return fail(Error::invalid("-B: SRC must be an image file, not a server or a pipe"));
}

}  // namespace vc::copy
