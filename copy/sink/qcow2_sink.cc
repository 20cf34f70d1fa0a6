#include "copy/sink/qcow2_sink.h"

#include <sys/uio.h>

#include <vector>

#include "crypto/encrypted_storage.h"

namespace vc::copy {

using Kind = Chunk::Cluster::Kind;

Result<std::unique_ptr<Qcow2Sink>> Qcow2Sink::create(Storage& out, Storage* data,
                                                     const Options& options) {
  ASSIGN_OR_RETURN(
      auto builder,
      with_context(qcow2::Builder::create(out, options.build, options.gaps), out.name()));
  // Without ownership: the caller keeps both.
  std::shared_ptr<Storage> target(std::shared_ptr<void>(), data ? data : &out);
  if (const auto& encryption = options.build.encryption)
    target = std::make_shared<crypto::EncryptedStorage>(std::move(target), encryption->cipher);
  return std::unique_ptr<Qcow2Sink>(new Qcow2Sink(std::move(target), std::move(builder), options));
}

Result<void> Qcow2Sink::preallocate(ClusterIndex first, ClusterIndex end) {
  if (options_.dry) return builder_->skip_preallocated(first, end - first);
  while (first < end) {
    ASSIGN_OR_RETURN(const auto placed, builder_->place_preallocated(first, end - first));
    first += placed.clusters;
  }
  return {};
}

Result<void> Qcow2Sink::place(Chunk& chunk) {
  if (preallocates_) RETURN_IF_ERROR(preallocate(end_, chunk.first));
  const bool hides_backing = !options_.build.backing_file.empty();
  const uint64_t cluster_size = geometry().cluster_size();
  auto& clusters = chunk.clusters;
  for (size_t i = 0; i < clusters.size();) {
    const ClusterIndex first = chunk.first + i;
    const Kind kind = clusters[i].kind;
    size_t run = 1;
    while (i + run < clusters.size() && clusters[i + run].kind == kind) ++run;
    if (kind == Kind::kCompressed) {
      run = 1;
      ASSIGN_OR_RETURN(clusters[i].host,
                       builder_->place_compressed(first, clusters[i].packed_length));
    } else if (kind == Kind::kData) {
      ASSIGN_OR_RETURN(const auto placed, builder_->place_data(first, run));
      run = placed.clusters;
      for (uint64_t k = 0; k < run; ++k) clusters[i + k].host = placed.host + k * cluster_size;
    } else if (hides_backing && kind != Kind::kHole) {
      RETURN_IF_ERROR(builder_->place_zero(first, run));
    } else if (preallocates_) {
      RETURN_IF_ERROR(preallocate(first, first + run));
    }
    i += run;
  }
  end_ = chunk.first + clusters.size();
  return {};
}

// Uses one write for clusters that are adjacent in the file, even if zeros lie between them on the
// disk.
Result<void> Qcow2Sink::write(const Chunk& chunk) {
  const uint64_t cluster_size = geometry().cluster_size();
  std::vector<iovec> pieces;
  HostOffset begin;
  HostOffset end;
  const auto flush = [&]() -> Result<void> {
    if (pieces.empty()) return {};
    auto written = data_->write_vector(begin, pieces);
    pieces.clear();
    return written;
  };
  for (size_t i = 0; i < chunk.clusters.size(); ++i) {
    const Chunk::Cluster& cluster = chunk.clusters[i];
    const bool plain = cluster.kind == Kind::kData;
    if (!plain && cluster.kind != Kind::kCompressed) continue;
    if (cluster.clone == Chunk::Clone::kYes) continue;
    const std::byte* const from =
        plain ? chunk.bytes.data() + i * cluster_size : chunk.packed.data() + cluster.packed_at;
    const uint64_t length = plain ? cluster_size : cluster.packed_length;
    if (pieces.empty() || cluster.host != end) {
      RETURN_IF_ERROR(flush());
      begin = cluster.host;
    }
    end = cluster.host + length;
    if (!pieces.empty() &&
        static_cast<const std::byte*>(pieces.back().iov_base) + pieces.back().iov_len == from)
      pieces.back().iov_len += length;
    else
      pieces.push_back({const_cast<std::byte*>(from), length});
  }
  RETURN_IF_ERROR(flush());
  return cloning_ ? cloning_->write(chunk) : Result<void>{};
}

Result<void> Qcow2Sink::shrink_to(uint64_t size) {
  size_ = size;
  return builder_->shrink_to(size);
}

// Allocates the rest of the active disk.
Result<void> Qcow2Sink::end_disk() {
  if (preallocates_)
    RETURN_IF_ERROR(preallocate(end_, ClusterIndex(geometry().clusters_for(size_))));
  preallocates_ = false;
  return {};
}

Result<void> Qcow2Sink::begin_snapshot(const qcow2::Snapshot& snapshot) {
  RETURN_IF_ERROR(end_disk());
  return builder_->begin_snapshot(snapshot);
}

Result<void> Qcow2Sink::finish() {
  RETURN_IF_ERROR(end_disk());
  return builder_->finish();
}

}  // namespace vc::copy
