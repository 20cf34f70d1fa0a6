#include "copy/pipeline/cluster_worker.h"

#include <cstring>
#include <span>

#include "base/zero_bytes.h"

namespace vc::copy {

ClusterWorker::ClusterWorker(const Options& options, std::optional<qcow2::Encoder> encoder)
    : options_(options),
      encoder_(std::move(encoder)),
      reader_({options.geometry, options.compression, options.cloning}) {}

Result<ClusterWorker> ClusterWorker::create(const Options& options) {
  std::optional<qcow2::Encoder> encoder;
  if (options.compression) {
    ASSIGN_OR_RETURN(encoder, qcow2::Encoder::create(options.compression));
  }
  return ClusterWorker(options, std::move(encoder));
}

void ClusterWorker::encode(Chunk& chunk, const Stop& stop) {
  const uint64_t cluster_size = options_.geometry.cluster_size();
  uint32_t packed = 0;
  for (size_t index = 0; index < chunk.clusters.size(); ++index) {
    Cluster& cluster = chunk.clusters[index];
    if (cluster.kind == Cluster::Kind::kHole || cluster.kind == Cluster::Kind::kSaidZero) continue;
    if (cluster.clone == Chunk::Clone::kYes) continue;
    if (stop.requested()) return;
    std::byte* const to = chunk.packed.data() + packed;
    if (cluster.kind == Cluster::Kind::kCompressed) {
      std::memmove(to, chunk.packed.data() + index * cluster_size, cluster.packed_length);
    } else {
      const auto bytes = chunk.cluster_bytes(index, cluster_size);
      if (is_zero(bytes)) {
        cluster.kind = Cluster::Kind::kZero;
        cluster.clone = Chunk::Clone::kNo;
        continue;
      }
      if (cluster.clone == Chunk::Clone::kMaybe) {
        cluster.clone = Chunk::Clone::kYes;
        continue;
      }
      if (!encoder_ || (options_.keep_plain && !cluster.was_compressed)) continue;
      // Streams of later clusters may start at the next place in `packed`. A stream is shorter than
      // a cluster, so it does not overwrite them.
      const size_t length = encoder_->encode(bytes, {to, cluster_size - 1});
      if (length == 0) continue;
      cluster.kind = Cluster::Kind::kCompressed;
      cluster.packed_length = static_cast<uint32_t>(length);
    }
    cluster.packed_at = packed;
    packed += cluster.packed_length;
  }
}

}  // namespace vc::copy
