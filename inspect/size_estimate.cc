#include "inspect/size_estimate.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <vector>

#include "base/mutex.h"
#include "base/rounding.h"
#include "base/thread_group.h"
#include "copy/sink/stream_storage.h"
#include "copy/space_check.h"
#include "qcow2/build/builder.h"

namespace vc::inspect {

using qcow2::Extent;

namespace {

// Smaller units give a better estimate for the same number of bytes.
constexpr uint64_t kUnitBytes = 512 << 10;
constexpr uint64_t kSeed = 0x766d636f6d706163;

// SplitMix64, S. Vigna's public-domain generator.
uint64_t hash(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Stored sizes of the live clusters of a unit, in order. Bytes; 0: zeros; cluster size:
// uncompressed.
using Outcomes = std::vector<uint32_t>;

// Calls `visit(first, clusters, unit)` for the live clusters in order, split at units. `unit`
// counts the units with live clusters.
template <typename Visit>
Result<void> for_each_live_unit(copy::Source& source, const qcow2::Geometry& geometry,
                                uint64_t per_unit, const Stop& stop, Visit visit) {
  uint64_t units = 0;
  uint64_t last = UINT64_MAX;
  return copy::for_each_live_run(source, geometry, stop, [&](ClusterIndex first, uint64_t count) {
    while (count > 0) {
      const uint64_t number = first.value() / per_unit;
      const uint64_t part = std::min(count, (number + 1) * per_unit - first.value());
      units += number != last;
      last = number;
      visit(first, part, units - 1);
      first += part;
      count -= part;
    }
  });
}

class Sampler {
 public:
  Sampler(copy::Source& source, const copy::ClusterWorker::Options& worker, uint64_t per_unit,
          const std::vector<uint64_t>& chosen, Progress& progress, Stop& stop)
      : source_(source),
        worker_(worker),
        per_unit_(per_unit),
        chosen_(chosen),
        outcomes_(chosen.size()),
        progress_(progress),
        stop_(stop) {}

  Result<std::vector<Outcomes>> run(unsigned threads) {
    ThreadGroup group(stop_, "measure");
    for (unsigned i = 0; i < threads; ++i) group.start([this] { return work(); });
    group.join();
    RETURN_IF_ERROR(stop_.result());
    return std::move(outcomes_);
  }
  uint64_t read() const {
    const MutexLock lock(mutex_);
    return read_;
  }

 private:
  Result<void> work() {
    ASSIGN_OR_RETURN(copy::ClusterWorker worker, copy::ClusterWorker::create(worker_));
    const uint64_t cluster_size = worker_.geometry.cluster_size();
    copy::Chunk chunk;
    chunk.bytes = AlignedBuffer(per_unit_ * cluster_size);
    if (worker_.compression) chunk.packed = AlignedBuffer(per_unit_ * cluster_size);
    for (size_t i = next_++; i < chosen_.size() && !stop_.requested(); i = next_++) {
      RETURN_IF_ERROR(load(chunk, ClusterIndex(chosen_[i] * per_unit_), worker));
      // The live clusters must be recorded before encode() changes their kinds.
      std::vector<bool> live;
      live.reserve(chunk.clusters.size());
      for (const copy::Chunk::Cluster& it : chunk.clusters)
        live.push_back(it.kind == copy::Chunk::Cluster::Kind::kData ||
                       it.kind == copy::Chunk::Cluster::Kind::kCompressed);
      worker.encode(chunk, stop_);
      for (size_t k = 0; k < live.size(); ++k) {
        if (!live[k]) continue;
        const copy::Chunk::Cluster& it = chunk.clusters[k];
        outcomes_[i].push_back(it.kind == copy::Chunk::Cluster::Kind::kCompressed ? it.packed_length
                               : it.kind == copy::Chunk::Cluster::Kind::kData
                                   ? static_cast<uint32_t>(cluster_size)
                                   : 0);
      }
      const MutexLock lock(mutex_);
      progress_.update(++done_, chosen_.size());
    }
    return {};
  }

  Result<void> load(copy::Chunk& chunk, ClusterIndex first, copy::ClusterWorker& worker) {
    const qcow2::Geometry& geometry = worker_.geometry;
    const GuestOffset begin = geometry.start_of(first);
    const uint64_t length =
        std::min(per_unit_ * geometry.cluster_size(), source_.size() - begin.value());
    chunk.first = first;
    chunk.clusters.assign(geometry.clusters_for(length), copy::Chunk::Cluster());
    chunk.extents.clear();
    {
      const MutexLock lock(mutex_);
      for (GuestOffset at = begin; at < begin + length;) {
        RETURN_IF_ERROR(source_.map(at, (begin + length) - at, chunk.extents));
        at = chunk.extents.back().end();
      }
      for (const Extent& extent : chunk.extents)
        read_ += extent.reads_as_zero() ? 0 : extent.length;
    }
    prepare(chunk, geometry);
    // Only a source without fetchers can load in several threads.
    if (source_.fetchers() == 0) return worker.load(source_, chunk);
    const MutexLock lock(mutex_);
    return worker.load(source_, chunk);
  }

  copy::Source& source_;
  const copy::ClusterWorker::Options& worker_;
  const uint64_t per_unit_;
  const std::vector<uint64_t>& chosen_;
  std::vector<Outcomes> outcomes_;  // each is written by one thread
  std::atomic<size_t> next_ = 0;
  mutable Mutex mutex_;
  size_t done_ GUARDED_BY(mutex_) = 0;
  uint64_t read_ GUARDED_BY(mutex_) = 0;
  Progress& progress_ GUARDED_BY(mutex_);
  Stop& stop_;
};

// Returns the bytes of the file that a unit takes: packed, with gaps that no other streams fill.
uint64_t cost_of(const Outcomes& unit, uint64_t cluster_size) {
  uint64_t clusters = 0;
  uint64_t packed = 0;
  for (const uint32_t bytes : unit) {
    if (bytes == cluster_size) {
      clusters += 1 + divide_up(packed, cluster_size);
      packed = 0;
    } else {
      packed += bytes;
    }
  }
  return clusters * cluster_size + packed;
}

// Returns the error bound of the mean of `values`, each from 0 to `most`.
double error_of_mean(const std::vector<double>& values, double most) {
  const auto n = static_cast<double>(values.size());
  double mean = 0;
  for (const double it : values) mean += it / n;
  double variance = 0;
  for (const double it : values) variance += (it - mean) * (it - mean) / n;
  const double log = std::log(3 / (1 - SizeEstimate::kConfidence));
  return std::sqrt(2 * variance * log / n) + 3 * most * log / n;
}

}  // namespace

Result<SizeEstimate> estimate_size(copy::Source& source, const qcow2::BuildOptions& build,
                                   const copy::ClusterWorker::Options& worker, uint64_t budget,
                                   unsigned threads, Progress& progress, Stop& stop) {
  const qcow2::Geometry& geometry = worker.geometry;
  const uint64_t cluster_size = geometry.cluster_size();
  // At least two clusters: neighbours determine how streams are packed.
  const uint64_t per_unit = std::clamp<uint64_t>(kUnitBytes / cluster_size, 2, 8);
  SizeEstimate result;
  uint64_t units = 0;
  uint64_t tables = 0;
  uint64_t last_table = UINT64_MAX;
  RETURN_IF_ERROR(for_each_live_unit(source, geometry, per_unit, stop,
                                     [&](ClusterIndex first, uint64_t count, uint64_t unit) {
                                       result.live += count;
                                       units = unit + 1;
                                       for (const ClusterIndex it : {first, first + (count - 1)}) {
                                         tables += geometry.l1_index(it) != last_table;
                                         last_table = geometry.l1_index(it);
                                       }
                                     }));
  const uint64_t samples = std::max<uint64_t>(budget / (per_unit * cluster_size), 16);
  if (units <= 2 * samples) {
    result.all_read = true;
    return result;
  }
  // Stratum s starts at unit s * units / samples.
  const auto start_of = [&](uint64_t stratum) {
    return stratum * (units / samples) + stratum * (units % samples) / samples;
  };
  std::vector<uint64_t> chosen;
  const auto wanted = [&](uint64_t stratum) {
    const uint64_t start = start_of(stratum);
    return start + hash(kSeed + stratum) % (start_of(stratum + 1) - start);
  };
  RETURN_IF_ERROR(for_each_live_unit(source, geometry, per_unit, stop,
                                     [&](ClusterIndex first, uint64_t /*count*/, uint64_t unit) {
                                       if (chosen.size() < samples && unit == wanted(chosen.size()))
                                         chosen.push_back(first.value() / per_unit);
                                     }));
  progress.begin(Phase::kMeasure);
  Sampler sampler(source, worker, per_unit, chosen, progress, stop);
  ASSIGN_OR_RETURN(const auto outcomes, sampler.run(threads));
  result.sampled = sampler.read();

  // Dry run of the whole image.
  copy::DryStorage out(0);
  ASSIGN_OR_RETURN(const auto builder, qcow2::Builder::create(out, build));
  Result<void> built;
  uint64_t stratum = 0;
  uint64_t ordinal = 0;  // of the next live cluster in its unit
  uint64_t last_unit = UINT64_MAX;
  RETURN_IF_ERROR(for_each_live_unit(
      source, geometry, per_unit, stop, [&](ClusterIndex first, uint64_t count, uint64_t unit) {
        if (!built) return;
        while (stratum + 1 < outcomes.size() && unit >= start_of(stratum + 1)) ++stratum;
        if (unit != last_unit) ordinal = 0;
        last_unit = unit;
        const Outcomes& like = outcomes[stratum];
        if (like.empty()) return;
        for (uint64_t i = 0; i < count && built; ++i) {
          const uint32_t bytes = like[ordinal++ % like.size()];
          if (bytes == 0) continue;
          if (bytes == cluster_size) {
            if (auto placed = builder->place_data(first + i, 1); !placed)
              built = fail(std::move(placed).error());
          } else if (auto placed = builder->place_compressed(first + i, bytes); !placed) {
            built = fail(std::move(placed).error());
          }
        }
      }));
  RETURN_IF_ERROR(std::move(built));
  RETURN_IF_ERROR(builder->finish());
  result.file_size = builder->counts().file_size;

  std::vector<double> bytes;
  std::vector<double> costs;
  bool zeros = false;
  for (const Outcomes& unit : outcomes) {
    uint64_t sum = 0;
    for (const uint32_t it : unit) {
      sum += it;
      zeros = zeros || it == 0;
    }
    bytes.push_back(static_cast<double>(sum));
    costs.push_back(static_cast<double>(cost_of(unit, cluster_size)));
  }
  const auto most = static_cast<double>(per_unit * cluster_size);
  const double mean_error = std::max(error_of_mean(bytes, most), error_of_mean(costs, most));
  // Refcounts scale with what they count. Tables that only zeros need may be present or not.
  const double error = 1.01 * mean_error * static_cast<double>(units) + most +
                       static_cast<double>((zeros ? tables : 0) * cluster_size);
  const auto off = static_cast<uint64_t>(std::min(error, 4e18));
  // Bitmaps of zeros only take less than the most that metadata_bytes() counts for them.
  qcow2::BuildOptions bare = build;
  bare.bitmaps.clear();
  const uint64_t least = qcow2::Builder::metadata_bytes(bare, 0);
  const uint64_t all =
      result.live * cluster_size + qcow2::Builder::metadata_bytes(build, result.live);
  result.low = std::max(result.file_size - std::min(result.file_size, off),
                        std::min(least, result.file_size));
  result.high = std::max(std::min(result.file_size + off, all), result.file_size);
  progress.update(chosen.size(), chosen.size());
  return result;
}

}  // namespace vc::inspect
