#include "copy/punch.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>
#include <vector>

#include "base/mutex.h"
#include "base/stop.h"
#include "base/thread_group.h"
#include "base/zero_bytes.h"
#include "copy/source/chunk_feed.h"
#include "copy/source/nbd_source.h"
#include "nbd/limits.h"
#include "nbd/writer.h"

namespace vc::copy {

using qcow2::Geometry;

namespace {

constexpr uint64_t kSmallestUnit = uint64_t{1} << Geometry::kMinClusterBits;
constexpr uint64_t kLargestUnit = uint64_t{1} << Geometry::kMaxClusterBits;
// Bytes per chunk: whole clusters of any image on the server.
constexpr uint64_t kPunchChunkSize = 4 << 20;
constexpr uint64_t kPunchMemory = 80 << 20;

Result<void> check_can_punch(const nbd::NbdLimits& limits, const std::string& name) {
  if (limits.read_only)
    return fail(Error::protocol(
        EROFS, name + ": the server allows no writes: start it without its read-only option"));
  if (!limits.can_trim)
    return fail(Error::protocol(
        ENOTSUP, name + ": the server does not support trim, so no space can be freed"));
  if (!limits.can_zero)
    return fail(
        Error::protocol(ENOTSUP, name + ": the server supports trim, but no zero requests: the "
                                        "content of trimmed blocks would be undefined"));
  return {};
}

// State shared by the threads.
class Puncher {
 public:
  Puncher(NbdSource& source, const nbd::NbdLimits& limits, const PunchOptions& options,
          uint64_t unit, Progress& progress, Stop& stop)
      : geometry_(static_cast<unsigned>(std::countr_zero(unit)), false),
        source_(source),
        writer_(limits, {options.nbd, true}),
        feed_(source,
              {.geometry = geometry_, .chunk_size = kPunchChunkSize, .chunks = chunks(options)},
              stop),
        dry_run_(options.dry_run),
        stop_(stop),
        progress_(progress) {}

  Result<void> run() {
    ThreadGroup threads(stop_, "punch", [this] { feed_.wake(); });
    for (size_t i = 0; i < source_.connections(); ++i)
      threads.start([this, i]() -> Result<void> {
        work(i);
        return {};
      });
    threads.join();
    return stop_.result();
  }

  PunchSummary summary() const {
    const MutexLock lock(mutex_);
    PunchSummary summary;
    summary.disk_size = source_.size();
    summary.unit = geometry_.cluster_size();
    summary.scanned = scanned_;
    summary.zero = zero_;
    summary.punched = dry_run_ ? 0 : zero_ - writer_.declined();
    return summary;
  }

 private:
  // A thread deallocates zeros on the connection that it read them on: a server may accept only one
  // client.
  class Fetched final : public NbdSource::Fetched {
   public:
    Fetched(Puncher& puncher, size_t index) : puncher_(puncher), index_(index) {}
    void push(Chunk* chunk) override {
      if (puncher_.stop_.requested()) return;
      if (auto done = puncher_.punch_zeros(*chunk, index_); !done)
        puncher_.stop_.fail(std::move(done).error());
      else
        puncher_.feed_.recycle(chunk);
    }

   private:
    Puncher& puncher_;
    const size_t index_;
  };

  size_t chunks(const PunchOptions& options) const {
    const uint64_t ahead = options.nbd.requests * options.nbd.request_size / kPunchChunkSize + 2;
    return std::clamp<uint64_t>(source_.connections() * ahead, 2, kPunchMemory / kPunchChunkSize);
  }

  void work(size_t index) {
    Result<void> result;
    try {
      Fetched fetched(*this, index);
      result = source_.fetch(index, feed_, geometry_, fetched);
    } catch (const std::bad_alloc&) {
      result = fail(Error::system(ENOMEM, "punch"));
    } catch (const std::exception& exception) {
      result = fail(Error::invalid(exception.what()));
    }
    if (result || result.error().kind() == Error::Kind::kCancelled) return;
    stop_.fail(std::move(result).error());
    feed_.wake();
  }

  Result<void> punch_zeros(const Chunk& chunk, size_t index) {
    const uint64_t unit = geometry_.cluster_size();
    std::vector<nbd::NbdWriter::Piece> runs;
    uint64_t zero = 0;
    for (size_t i = 0; i < chunk.clusters.size(); ++i) {
      // Clusters that were not read are not data.
      if (chunk.clusters[i].kind != Chunk::Cluster::Kind::kData) continue;
      if (!is_zero(chunk.bytes.span().subspan(i * unit, unit))) continue;
      const uint64_t at = chunk.begin().value() + i * unit;
      const uint64_t length = std::min(unit, chunk.end().value() - at);
      zero += length;
      if (!runs.empty() && runs.back().at + runs.back().length == at)
        runs.back().length += length;
      else
        runs.push_back({at, length, nullptr});
    }
    if (!dry_run_) RETURN_IF_ERROR(writer_.send(source_.session(index), runs));
    uint64_t data = 0;
    for (const qcow2::Extent& extent : chunk.extents)
      if (!extent.reads_as_zero()) data += extent.length;
    const uint64_t skipped = feed_.skipped();
    const MutexLock lock(mutex_);
    scanned_ += data;
    zero_ += zero;
    done_ += chunk.end() - chunk.begin();
    // Skipped ranges are known early, and a chunk may later include a part of them.
    told_ = std::max(told_, std::min(source_.size(), done_ + skipped));
    progress_.update(told_, source_.size());
    return {};
  }

  const Geometry geometry_;
  NbdSource& source_;
  nbd::NbdWriter writer_;
  ChunkFeed feed_;
  const bool dry_run_;
  Stop& stop_;

  mutable Mutex mutex_;
  Progress& progress_ GUARDED_BY(mutex_);
  // Bytes.
  uint64_t scanned_ GUARDED_BY(mutex_) = 0;
  uint64_t zero_ GUARDED_BY(mutex_) = 0;
  uint64_t done_ GUARDED_BY(mutex_) = 0;
  uint64_t told_ GUARDED_BY(mutex_) = 0;
};

// Flushes, so that the deallocation reaches the server's disk.
Result<void> flush(nbd::NbdSession& session) {
  while (true) {
    auto done = session.connection().flush_now();
    if (done || !session.is_loss(done.error())) return done;
    RETURN_IF_ERROR(session.restore(std::move(done).error()));
  }
}

}  // namespace

Result<PunchSummary> punch(const PunchOptions& options, Progress& progress, const Cancel& cancel) {
  const auto start = std::chrono::steady_clock::now();
  Stop stop(cancel);
  NbdSource::Options reading;
  reading.tuning = options.nbd;
  ASSIGN_OR_RETURN(const auto source, NbdSource::open(options.target, reading, stop));
  const nbd::NbdLimits limits = source->session(0).limits();
  RETURN_IF_ERROR(check_can_punch(limits, source->name()));
  uint64_t unit = options.unit;
  if (unit == 0) unit = std::clamp(limits.preferred, kSmallestUnit, kLargestUnit);
  if (!std::has_single_bit(unit) || unit < kSmallestUnit || unit > kLargestUnit)
    return fail(
        Error::invalid(fmt::format("a block size of {} bytes is not a power of two from {} to {}",
                                   unit, kSmallestUnit, kLargestUnit)));
  unit = std::max(unit, limits.minimum);

  Puncher puncher(*source, limits, options, unit, progress, stop);
  RETURN_IF_ERROR(puncher.run());
  if (limits.can_flush && !options.dry_run) RETURN_IF_ERROR(flush(source->session(0)));
  progress.update(source->size(), source->size());
  PunchSummary summary = puncher.summary();
  summary.elapsed = std::chrono::steady_clock::now() - start;
  return summary;
}

}  // namespace vc::copy
