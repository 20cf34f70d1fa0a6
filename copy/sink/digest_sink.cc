#include "copy/sink/digest_sink.h"

#include <fmt/format.h>

#include "base/rounding.h"

namespace vc::copy {

using Kind = Chunk::Cluster::Kind;

Result<void> DigestSink::add_decoded(const Chunk& chunk, const Chunk::Cluster& cluster,
                                     GuestOffset at) {
  auto context = decoders_.take();
  context->cluster.resize(geometry().cluster_size());
  const auto stream = chunk.packed.span().subspan(cluster.packed_at, cluster.packed_length);
  const auto decoded = context->decoder.decode(*compression_, stream, context->cluster);
  if (!decoded)
    return with_context(
        decoded, fmt::format("source: compressed cluster of guest offset {:#x}", at.value()));
  digests_.add(at, context->cluster);
  return {};
}

Result<void> DigestSink::add(const Chunk& chunk) {
  const uint64_t cluster_size = geometry().cluster_size();
  GuestOffset at = geometry().start_of(chunk.first);
  size_t offset = 0;
  std::optional<GuestOffset> cloned;  // the last group
  for (const Chunk::Cluster& cluster : chunk.clusters) {
    if (cluster.kind == Kind::kData && cluster.clone == Chunk::Clone::kYes) {
      const GuestOffset group(round_down(at.value(), digests_.clone_group()));
      if (cloned != group) digests_.add_clone(group);
      cloned = group;
    } else if (cluster.passed_through) {
      RETURN_IF_ERROR(add_decoded(chunk, cluster, at));
    } else if (cluster.kind == Kind::kData || cluster.kind == Kind::kCompressed) {
      digests_.add(at, chunk.bytes.span().subspan(offset, cluster_size));
    } else if (cluster.kind != Kind::kHole) {
      digests_.add_zeros(at, cluster_size);
    }
    at += cluster_size;
    offset += cluster_size;
  }
  return {};
}

Result<void> DigestSink::write(const Chunk& chunk) {
  RETURN_IF_ERROR(add(chunk));
  return next_.write(chunk);
}

}  // namespace vc::copy
