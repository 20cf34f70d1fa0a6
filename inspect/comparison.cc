#include "inspect/comparison.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <thread>

#include "base/aligned_buffer.h"
#include "base/poll_interval.h"
#include "base/rounding.h"
#include "base/thread_group.h"
#include "base/zero_bytes.h"
#include "qcow2/format/geometry.h"

namespace vc::inspect {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

// The data of both disks should stay in the processor's cache between reading and comparing.
constexpr uint64_t kJobSize = 256 << 10;
// Requests to a server are larger, because each reply takes time.
constexpr uint64_t kServerJobSize = 1 << 20;
// Maximum finished jobs after an unfinished one: their findings are in memory.
constexpr uint64_t kWindow = 64;
constexpr uint64_t kSector = qcow2::Geometry::kSectorSize;
constexpr unsigned kMostThreads = 16;

void add(std::vector<Comparison::Range>& ranges, uint64_t start, uint64_t end) {
  if (!ranges.empty() && ranges.back().end() == start)
    ranges.back().length += end - start;
  else
    ranges.push_back({start, end - start});
}

// Returns the allocation state of an extent, for strict mode.
int allocation_of(const Extent& extent) {
  switch (extent.kind) {
    case ExtentKind::kUnallocated:
      return 0;
    case ExtentKind::kZero:
      return 1;
    case ExtentKind::kData:
    case ExtentKind::kCompressed:
      break;
  }
  return 2;
}

}  // namespace

struct Comparison::Buffers {
  explicit Buffers(uint64_t size, size_t number) : a(size), b(size), lane(number) {}
  AlignedBuffer a;
  AlignedBuffer b;
  const size_t lane;
};

Comparison::Comparison(ComparedDisk& a, ComparedDisk& b, const Options& options, Observer& observer,
                       Progress& progress, Stop& stop)
    : a_(a),
      b_(b),
      options_(options),
      observer_(observer),
      progress_(progress),
      stop_(stop),
      size_(std::max(a.size(), b.size())),
      job_size_(std::max(
          {a.is_server() || b.is_server() ? kServerJobSize : kJobSize, a.unit(), b.unit()})) {}

// Returns true if both read as zeros, or share the same bytes of the same file.
bool Comparison::is_same(const Extent& a, const Extent& b) const {
  if (a.reads_as_zero() && b.reads_as_zero()) return true;
  if (a.kind != b.kind || a.host != b.host || a.compressed_length != b.compressed_length)
    return false;
  const auto file = a_.file_of(a);
  return file && file == b_.file_of(b);
}

Result<bool> Comparison::plan(Job& job) {
  job.a.clear();
  job.b.clear();
  while (position_ < size_ && position_ < limit_.load()) {
    if (stop_.requested()) return false;
    ASSIGN_OR_RETURN(const Extent a, a_.extent_at(position_, size_));
    ASSIGN_OR_RETURN(const Extent b, b_.extent_at(position_, size_));
    if (options_.strict && allocation_of(a) != allocation_of(b)) {
      const MutexLock lock(mutex_);
      limit_ = std::min(limit_.load(), position_);
      // Earlier differences take precedence.
      summary_.verdict = Verdict::kAllocation;
      summary_.offset = position_;
      return !job.a.empty();
    }
    uint64_t length = std::min(a.length, b.length);
    const bool same = is_same(a, b);
    if (job.a.empty()) {
      if (same) {
        position_ += length;
        continue;
      }
      job.begin = position_;
      job.end = std::min(size_, (position_ / job_size_ + 1) * job_size_);
    }
    length = std::min(length, job.end - position_);
    for (auto [extents, extent] : {std::pair(&job.a, a), std::pair(&job.b, b)}) {
      extent.length = length;
      extents->push_back(extent);
    }
    position_ += length;
    if (position_ == job.end) return true;
  }
  if (job.a.empty()) return false;
  job.end = position_;
  return true;
}

Result<bool> Comparison::next(Job& job) {
  const MutexLock plan_lock(plan_mutex_);
  {
    // The thread with the oldest job never waits here, so the job gets done.
    MutexLock lock(mutex_);
    while (sequence_ >= finished_ + kWindow && !stop_.requested())
      done_.wait_for(lock, kPollInterval);
  }
  const uint64_t from = position_;
  auto planned = plan(job);
  if (!planned) {
    fail_at(std::max(from, position_), Stage::kMap, std::move(planned).error());
    if (job.a.empty()) return false;
    job.end = position_;
  } else if (!*planned) {
    return false;
  } else if (!job.a.empty()) {
    job.end = std::min(job.end, position_);
  }
  job.sequence = sequence_++;
  return true;
}

Result<std::vector<Comparison::Range>> Comparison::compare(const Job& job, Buffers& buffers) {
  std::vector<Range> ranges;
  // Reads pieces of one extent in one call.
  const auto fill = [&](ComparedDisk& disk, const std::vector<Extent>& extents,
                        AlignedBuffer& to) -> Result<void> {
    for (size_t i = 0; i < extents.size();) {
      Extent whole = extents[i];
      bool needed = !is_same(job.a[i], job.b[i]);
      size_t end = i + 1;
      for (; end < extents.size() && disk.can_read_together(whole, extents[end]); ++end) {
        whole.length += extents[end].length;
        needed = needed || !is_same(job.a[end], job.b[end]);
      }
      if (needed && !whole.reads_as_zero())
        RETURN_IF_ERROR(disk.read(
            whole, buffers.lane, to.span().subspan(whole.guest.value() - job.begin, whole.length)));
      i = end;
    }
    return {};
  };
  RETURN_IF_ERROR(fill(a_, job.a, buffers.a));
  RETURN_IF_ERROR(fill(b_, job.b, buffers.b));
  for (size_t i = 0; i < job.a.size(); ++i) {
    const Extent& a = job.a[i];
    const Extent& b = job.b[i];
    if (is_same(a, b)) continue;
    const uint64_t start = a.guest.value();
    const auto in_a = buffers.a.span().subspan(start - job.begin, a.length);
    const auto in_b = buffers.b.span().subspan(start - job.begin, a.length);
    const auto equal = [&](uint64_t from, uint64_t length) {
      if (a.reads_as_zero()) return is_zero(in_b.subspan(from, length));
      if (b.reads_as_zero()) return is_zero(in_a.subspan(from, length));
      return std::memcmp(in_a.data() + from, in_b.data() + from, length) == 0;
    };
    if (equal(0, a.length)) continue;
    for (uint64_t at = 0; at < a.length;) {
      const uint64_t length = std::min(a.length - at, kSector - (start + at) % kSector);
      if (!equal(at, length) && !is_lost(start + at, length)) {
        // Reports whole sectors, although pieces may end inside one.
        const uint64_t sector = round_down(start + at, kSector);
        const uint64_t end = std::min(sector + kSector, size_);
        if (ranges.empty() || ranges.back().end() <= sector) add(ranges, sector, end);
        if (!options_.all) return ranges;
      }
      at += length;
    }
  }
  return ranges;
}

bool Comparison::is_lost(uint64_t at, uint64_t length) const {
  for (const ComparedDisk* const disk : {&a_, &b_}) {
    if (disk->losses() == nullptr) continue;
    const qcow2::Loss loss = disk->losses()->next(GuestOffset(at));
    if (loss.length > 0 && loss.at.value() < at + length) return true;
  }
  return false;
}

void Comparison::tell(const Range& range) {
  if (open_ && range.start <= open_->end()) {
    open_->length = std::max(open_->end(), range.end()) - open_->start;
    return;
  }
  if (open_) {
    ++summary_.ranges;
    summary_.differing += open_->length;
    observer_.differ(*open_);
  }
  open_ = range;
}

void Comparison::finish(const Job& job, std::vector<Range> ranges) {
  const MutexLock lock(mutex_);
  if (!ranges.empty() && !options_.all) limit_ = std::min(limit_.load(), ranges.front().start);
  for (size_t i = 0; i < job.a.size(); ++i)
    if (!is_same(job.a[i], job.b[i])) summary_.compared += job.a[i].length;
  early_.emplace(job.sequence, std::pair(job.end, std::move(ranges)));
  uint64_t reached = 0;
  for (auto it = early_.begin(); it != early_.end() && it->first == finished_;
       it = early_.erase(it), ++finished_) {
    for (const Range& range : it->second.second) {
      if (summary_.verdict != Verdict::kContent) {
        summary_.verdict = Verdict::kContent;
        summary_.offset = range.start;
      }
      if (options_.all) tell(range);
    }
    reached = it->second.first;
  }
  if (reached != 0 && reached < size_) progress_.update(reached, size_);
  done_.notify_all();
}

void Comparison::fail_at(uint64_t offset, Stage stage, Error error) {
  const MutexLock lock(mutex_);
  limit_ = std::min(limit_.load(), offset);
  if (error_ && error_at_ <= offset) return;
  error_ = std::move(error);
  error_at_ = offset;
  stage_ = stage;
}

void Comparison::work() {
  Buffers buffers(job_size_, lanes_++);
  Job job;
  while (!stop_.requested()) {
    const auto more = next(job);
    if (!more || !*more) return;
    auto ranges = compare(job, buffers);
    if (!ranges) {
      fail_at(job.begin, Stage::kRead, std::move(ranges).error());
      ranges = std::vector<Range>();
    }
    finish(job, std::move(*ranges));
  }
}

Result<Comparison::Summary> Comparison::run() {
  const auto start = std::chrono::steady_clock::now();
  progress_.begin(Phase::kCompare);
  if (options_.strict && a_.size() != b_.size()) {
    Summary summary;
    summary.verdict = Verdict::kSize;
    return summary;
  }
  unsigned count = options_.threads != 0
                       ? options_.threads
                       : std::clamp(std::thread::hardware_concurrency(), 1u, kMostThreads);
  if (options_.threads == 0)
    for (const ComparedDisk* const disk : {&a_, &b_})
      count = std::max(count, static_cast<unsigned>(disk->lanes()));
  ThreadGroup threads(stop_, "compare");
  for (unsigned i = 0; i < count; ++i)
    threads.start([this]() -> Result<void> {
      work();
      return {};
    });
  threads.join();
  RETURN_IF_ERROR(stop_.result());
  const MutexLock lock(mutex_);
  // Reports the error or the difference, whichever comes first on the disk.
  if (error_ &&
      (summary_.verdict == Verdict::kSame || options_.all || error_at_ <= summary_.offset))
    return fail(*error_);
  if (open_) {
    ++summary_.ranges;
    summary_.differing += open_->length;
    observer_.differ(*open_);
  }
  progress_.update(size_, size_);
  summary_.elapsed = std::chrono::steady_clock::now() - start;
  return summary_;
}

}  // namespace vc::inspect
