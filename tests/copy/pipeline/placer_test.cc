#include "copy/pipeline/placer.h"

#include <algorithm>

#include "copy/sink/qcow2_sink.h"
#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"
#include "tests/support/random.h"

using namespace vc;

using copy::Chunk;
using copy::Placer;
using Kind = Chunk::Cluster::Kind;

namespace {

constexpr uint64_t kChunks = 60;
constexpr uint64_t kClustersEach = 16;
constexpr uint64_t kClusterSize = 4096;

std::unique_ptr<copy::Qcow2Sink> make_sink(Storage& out) {
  copy::Qcow2Sink::Options options;
  options.build.size = kChunks * kClustersEach * kClusterSize;
  options.build.cluster_bits = 12;
  options.build.compression_type = qcow2::CompressionType::kZstd;
  auto sink = copy::Qcow2Sink::create(out, nullptr, options);
  REQUIRE_OK(sink);
  return std::move(*sink);
}

// Returns chunks with every kind of cluster. The same seed gives the same chunks.
std::vector<Chunk> make_chunks(uint64_t seed) {
  support::Random random(seed);
  const std::vector<Kind> kinds{Kind::kHole, Kind::kZero, Kind::kData, Kind::kData,
                                Kind::kCompressed};
  std::vector<Chunk> chunks(kChunks);
  for (uint64_t i = 0; i < kChunks; ++i) {
    chunks[i].sequence = i;
    chunks[i].first = ClusterIndex(i * kClustersEach);
    chunks[i].clusters.resize(kClustersEach);
    for (auto& cluster : chunks[i].clusters) {
      cluster.kind = random.pick(kinds);
      if (cluster.kind == Kind::kCompressed)
        cluster.packed_length = static_cast<uint32_t>(random.between(1, kClusterSize - 1));
    }
  }
  return chunks;
}

struct Outcome {
  std::vector<uint64_t> hosts;  // of each placed cluster, in guest order
  std::vector<std::byte> metadata;
};

Outcome place(uint64_t seed, const std::vector<size_t>& order) {
  qcow2::MemoryStorage out;
  const auto sink = make_sink(out);
  Placer placer(*sink);
  auto chunks = make_chunks(seed);

  std::vector<bool> here(kChunks);
  uint64_t next = 0;
  for (const size_t index : order) {
    auto placed = placer.complete(&chunks[index]);
    REQUIRE_OK(placed);
    here[index] = true;
    // Exactly those chunks that have arrived with all of their predecessors, each once.
    for (const Chunk* chunk : *placed) REQUIRE(chunk->sequence == next++);
    REQUIRE((next == kChunks || !here[next]));
  }
  REQUIRE(next == kChunks);
  REQUIRE_OK(sink->finish());

  Outcome outcome;
  for (const Chunk& chunk : chunks)
    for (const auto& cluster : chunk.clusters)
      if (cluster.kind == Kind::kData || cluster.kind == Kind::kCompressed) {
        REQUIRE(cluster.host.value() != 0);
        outcome.hosts.push_back(cluster.host.value());
      }
  outcome.metadata = out.bytes();
  return outcome;
}

}  // namespace

TEST_CASE("the layout does not depend on the order of chunks", "[copy]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  std::vector<size_t> order(kChunks);
  for (size_t i = 0; i < kChunks; ++i) order[i] = i;
  const Outcome in_order = place(seed, order);
  REQUIRE(in_order.hosts.size() > kChunks);

  support::Random random(seed);
  for (int round = 0; round < 20; ++round) {
    for (size_t i = kChunks - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
    const Outcome shuffled = place(seed, order);
    CHECK(shuffled.hosts == in_order.hosts);
    CHECK(shuffled.metadata == in_order.metadata);
  }
  std::sort(order.rbegin(), order.rend());
  CHECK(place(seed, order).metadata == in_order.metadata);
}

TEST_CASE("clusters are stored in guest order", "[copy]") {
  std::vector<size_t> order(kChunks);
  for (size_t i = 0; i < kChunks; ++i) order[i] = i;
  auto chunks = make_chunks(7);
  qcow2::MemoryStorage out;
  const auto sink = make_sink(out);
  Placer placer(*sink);
  uint64_t last = 0;
  for (Chunk& chunk : chunks) {
    for (auto& cluster : chunk.clusters)
      if (cluster.kind == Kind::kCompressed) cluster.kind = Kind::kData;
    REQUIRE_OK(placer.complete(&chunk));
    for (const auto& cluster : chunk.clusters) {
      if (cluster.kind != Kind::kData) continue;
      CHECK(cluster.host.value() >= last + kClusterSize);
      CHECK(cluster.host.value() % kClusterSize == 0);
      last = cluster.host.value();
    }
  }
}
