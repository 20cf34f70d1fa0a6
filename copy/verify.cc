#include "copy/verify.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <optional>
#include <span>

#include "base/retry.h"
#include "base/rounding.h"
#include "base/stop.h"
#include "copy/sink/clone_comparison.h"
#include "storage/descriptor.h"

namespace vc::copy {

using qcow2::Extent;
using Kind = Chunk::Cluster::Kind;

namespace {

// Unit for reading a disk without clusters.
constexpr uint64_t kClusterSize = 64 << 10;
// Maximum differences listed in an error.
constexpr size_t kShown = 4;

// The first `size` bytes of a source: devices and servers round the size of a disk up, or are
// larger from the start. For a pipeline.
class Front final : public Source {
 public:
  // `clones`: nullptr, or compares what was cloned, in clusters of `geometry`.
  Front(Source& whole, uint64_t size, CloneComparison* clones, const qcow2::Geometry& geometry)
      : whole_(whole),
        alignment_(whole.alignment()),
        size_(whole_blocks(size)),
        clones_(clones),
        geometry_(geometry) {}

  const std::string& name() const override { return whole_.name(); }
  uint64_t size() const override { return size_; }
  std::optional<uint64_t> cluster_size() const override { return whole_.cluster_size(); }
  uint64_t alignment() const override { return alignment_; }
  Result<void> map(GuestOffset at, uint64_t length, std::vector<Extent>& out) override {
    return whole_.map(at, length, out);
  }
  Result<void> read(GuestOffset at, std::span<std::byte> to) override {
    return whole_.read(at, to);
  }
  size_t fetchers() const override { return whole_.fetchers(); }
  Result<void> fetch(size_t index, ChunkFeed& feed, const qcow2::Geometry& geometry,
                     Fetched& fetched) override {
    return whole_.fetch(index, feed, geometry, fetched);
  }
  Result<void> load(Chunk& chunk, ClusterReader& reader) override {
    if (clones_) RETURN_IF_ERROR(clones_->mark_equal(chunk, geometry_));
    return whole_.load(chunk, reader);
  }

 private:
  uint64_t whole_blocks(uint64_t size) const {
    const uint64_t remainder = size % alignment_;
    return std::min(whole_.size(), remainder == 0 ? size : size + (alignment_ - remainder));
  }

  Source& whole_;
  const uint64_t alignment_;
  const uint64_t size_;
  CloneComparison* const clones_;
  const qcow2::Geometry geometry_;
};

// A sink that only computes digests.
class DigestEnd final : public Sink {
 public:
  DigestEnd(const qcow2::Geometry& geometry, Digests& digests)
      : geometry_(geometry), digests_(digests) {}

  const qcow2::Geometry& geometry() const override { return geometry_; }
  Result<void> place(Chunk& /*chunk*/) override { return {}; }
  Result<void> write(const Chunk& chunk) override {
    const uint64_t cluster_size = geometry_.cluster_size();
    uint64_t offset = 0;
    uint64_t read = 0;
    for (const Chunk::Cluster& cluster : chunk.clusters) {
      const GuestOffset at = geometry_.start_of(chunk.first) + offset;
      const bool cloned = cluster.clone == Chunk::Clone::kYes;
      const bool data = cluster.kind == Kind::kData && !cloned;
      if (cloned)
        add_clone(at);
      else if (data)
        digests_.add(at, chunk.bytes.span().subspan(offset, cluster_size));
      else if (cluster.kind != Kind::kHole)
        digests_.add_zeros(at, cluster_size);
      if (data || cluster.kind == Kind::kZero) read += std::min(cluster_size, chunk.end() - at);
      offset += cluster_size;
    }
    read_.fetch_add(read, std::memory_order_relaxed);
    return {};
  }
  Result<void> finish() override { return {}; }

  uint64_t read() const { return read_; }  // guest bytes

 private:
  // A chunk has whole groups, and one thread.
  void add_clone(GuestOffset at) {
    const GuestOffset group(round_down(at.value(), digests_.clone_group()));
    if (!digests_.has_clone(group)) digests_.add_clone(group);
  }

  const qcow2::Geometry geometry_;
  Digests& digests_;
  std::atomic<uint64_t> read_{0};
};

std::string describe(const std::vector<Digests::Range>& ranges) {
  std::string text;
  for (size_t i = 0; i < std::min(ranges.size(), kShown); ++i)
    text += fmt::format("{}{:#x} to {:#x}", i == 0 ? "" : ", ", ranges[i].begin.value(),
                        ranges[i].end.value() - 1);
  if (ranges.size() > kShown)
    text += fmt::format(" and {} more range{}", ranges.size() - kShown,
                        ranges.size() == kShown + 1 ? "" : "s");
  return text;
}

}  // namespace

Result<VerifySummary> verify(const Digests& source, Source& copy, const Pipeline::Options& options,
                             Progress& progress, const Cancel& cancel, Source* original) {
  const auto start = std::chrono::steady_clock::now();
  if (copy.size() < source.size())
    return fail(Error::invalid(fmt::format("{}: has {} bytes, and its source had {}", copy.name(),
                                           copy.size(), source.size())));
  Pipeline::Options plan = options;
  const uint64_t cluster_size =
      std::max(copy.cluster_size().value_or(kClusterSize), source.piece_size());
  plan.worker.compression = {};
  plan.worker.cloning = nullptr;
  plan.unit = source.has_clones() ? source.clone_group() : 1;
  plan.worker.geometry =
      qcow2::Geometry(static_cast<unsigned>(std::countr_zero(cluster_size)), false);
  plan.chunk_size = std::max(options.chunk_size, cluster_size);

  progress.begin(Phase::kVerify);
  Stop stop(cancel);
  std::optional<CloneComparison> clones;
  if (original && options.worker.cloning)
    clones.emplace(source, *options.worker.cloning, *original, copy);
  Front front(copy, source.size(), clones ? &*clones : nullptr, plan.worker.geometry);
  Digests stored = source.emptied();
  DigestEnd end(plan.worker.geometry, stored);
  Pipeline pipeline(front, end, progress, stop, plan);
  RETURN_IF_ERROR(with_context(pipeline.run(), "verify"));
  progress.update(front.size(), front.size());

  const auto ranges = source.differences(stored);
  if (!ranges.empty())
    return fail(Error::protocol(
        EIO, fmt::format("{}: differs from its source: do not use it; guest bytes {}", copy.name(),
                         describe(ranges))));
  VerifySummary summary;
  summary.size = source.size();
  summary.read = std::min(end.read() + (clones ? clones->read() : 0), source.size());
  summary.shared = clones ? clones->shared() : 0;
  summary.elapsed = std::chrono::steady_clock::now() - start;
  return summary;
}

void forget_cached(const std::string& path) {
  const Descriptor file(retry(::open, path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return;  // the next open reports the error
  (void)::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
}

}  // namespace vc::copy
