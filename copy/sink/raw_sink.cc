#include "copy/sink/raw_sink.h"

#include <algorithm>

namespace vc::copy {

using Kind = Chunk::Cluster::Kind;

Result<void> RawSink::place(Chunk& chunk) {
  chunk.gap = end_;
  HostOffset host(options_.geometry.start_of(chunk.first).value());
  for (Chunk::Cluster& cluster : chunk.clusters) {
    cluster.host = host;
    host += options_.geometry.cluster_size();
  }
  end_ = chunk.end();
  return {};
}

Result<void> RawSink::zero(uint64_t begin, uint64_t end) {
  if (options_.zeroed || begin >= end) return {};
  return out_.write_zeroes(HostOffset(begin), end - begin);
}

Result<void> RawSink::write(const Chunk& chunk) {
  RETURN_IF_ERROR(zero(chunk.gap.value(), chunk.begin().value()));
  const uint64_t cluster_size = options_.geometry.cluster_size();
  const uint64_t start = chunk.begin().value();
  const uint64_t length = chunk.end() - chunk.begin();
  // What is cloned needs no bytes here, like zeros of a destination that reads as zeros.
  const auto is_data = [&](size_t i) {
    return chunk.clusters[i].kind == Kind::kData && chunk.clusters[i].clone != Chunk::Clone::kYes;
  };
  for (size_t i = 0; i < chunk.clusters.size();) {
    size_t end = i + 1;
    while (end < chunk.clusters.size() && is_data(end) == is_data(i)) ++end;
    const uint64_t from = i * cluster_size;
    const uint64_t to = std::min(end * cluster_size, length);
    if (is_data(i))
      RETURN_IF_ERROR(
          out_.write(HostOffset(start + from), chunk.bytes.span().subspan(from, to - from)));
    else
      RETURN_IF_ERROR(zero(start + from, start + to));
    i = end;
  }
  return cloning_ ? cloning_->write(chunk) : Result<void>{};
}

Result<void> RawSink::finish() {
  return zero(end_.value(), options_.size);
}

}  // namespace vc::copy
