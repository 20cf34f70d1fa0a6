#include "copy/qcow2_sink.h"

#include <sys/uio.h>

#include <vector>

namespace copy {

using qcow2::Result;
using Kind = Chunk::Cluster::Kind;

Result<std::unique_ptr<Qcow2Sink>> Qcow2Sink::create(qcow2::Storage& out,
                                                     const qcow2::BuildOptions& options) {
  ASSIGN_OR_RETURN(auto builder, with_context(qcow2::Builder::create(out, options), out.name()));
  return std::unique_ptr<Qcow2Sink>(new Qcow2Sink(out, std::move(builder)));
}

Result<void> Qcow2Sink::place(Chunk& chunk) {
  auto& clusters = chunk.clusters;
  for (size_t i = 0; i < clusters.size();) {
    if (clusters[i].kind == Kind::kCompressed) {
      ASSIGN_OR_RETURN(clusters[i].host,
                       builder_->place_compressed(chunk.first + i, clusters[i].packed_length));
      ++i;
    } else if (clusters[i].kind == Kind::kData) {
      size_t run = 1;
      while (i + run < clusters.size() && clusters[i + run].kind == Kind::kData) ++run;
      ASSIGN_OR_RETURN(const auto placed, builder_->place_data(chunk.first + i, run));
      const uint64_t cluster_size = builder_->geometry().cluster_size();
      for (uint64_t k = 0; k < placed.clusters; ++k)
        clusters[i + k].host = placed.host + k * cluster_size;
      i += placed.clusters;
    } else {
      ++i;
    }
  }
  return {};
}

// One write for what lies in a row in the file, though zeros were taken out between the pieces.
Result<void> Qcow2Sink::write(const Chunk& chunk) {
  const uint64_t cluster_size = geometry().cluster_size();
  std::vector<iovec> pieces;
  qcow2::HostOffset begin;
  qcow2::HostOffset end;
  const auto flush = [&]() -> Result<void> {
    if (pieces.empty()) return {};
    auto written = out_.write_vector(begin, pieces);
    pieces.clear();
    return written;
  };
  for (size_t i = 0; i < chunk.clusters.size(); ++i) {
    const Chunk::Cluster& cluster = chunk.clusters[i];
    const bool plain = cluster.kind == Kind::kData;
    if (!plain && cluster.kind != Kind::kCompressed) continue;
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
  return flush();
}

Result<void> Qcow2Sink::finish() {
  return builder_->finish();
}

}  // namespace copy
