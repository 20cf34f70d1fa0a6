#include "copy/placer.h"

namespace copy {

using qcow2::Result;
using Kind = Chunk::Cluster::Kind;

Result<void> Placer::place(Chunk& chunk) {
  auto& clusters = chunk.clusters;
  for (size_t i = 0; i < clusters.size();) {
    if (clusters[i].kind == Kind::kCompressed) {
      ASSIGN_OR_RETURN(clusters[i].host,
                       builder_.place_compressed(chunk.first + i, clusters[i].packed_length));
      ++i;
    } else if (clusters[i].kind == Kind::kData) {
      size_t run = 1;
      while (i + run < clusters.size() && clusters[i + run].kind == Kind::kData) ++run;
      ASSIGN_OR_RETURN(const auto placed, builder_.place_data(chunk.first + i, run));
      const uint64_t cluster_size = builder_.geometry().cluster_size();
      for (uint64_t k = 0; k < placed.clusters; ++k)
        clusters[i + k].host = placed.host + k * cluster_size;
      i += placed.clusters;
    } else {
      ++i;
    }
  }
  return {};
}

Result<std::vector<Chunk*>> Placer::complete(Chunk* chunk) {
  std::vector<Chunk*> placed;
  const std::lock_guard lock(mutex_);
  early_.emplace(chunk->sequence, chunk);
  for (auto it = early_.begin(); it != early_.end() && it->first == next_;
       it = early_.erase(it), ++next_) {
    RETURN_IF_ERROR(place(*it->second));
    placed.push_back(it->second);
  }
  return placed;
}

}  // namespace copy
