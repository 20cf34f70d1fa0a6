// Compares two disks: whether they hold the same bytes, and where they differ.
//
// One thread at a time reads both maps and divides the ranges to check into jobs. Any number of
// threads read and compare them. Ranges that are zeros on both disks, or at the same place of the
// same file, are equal without reading.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/stop.h"
#include "inspect/compared_disk.h"

namespace vc::inspect {

class Comparison {
 public:
  struct Options {
    bool strict = false;   // sizes and allocation must be equal, too
    bool all = false;      // continues after the first difference and reports each
    unsigned threads = 0;  // 0: one per processor
  };

  // A range of bytes that differ, in whole sectors of 512 bytes (or up to the end of the disk).
  struct Range {
    uint64_t start = 0;
    uint64_t length = 0;
    uint64_t end() const { return start + length; }
    bool operator==(const Range&) const = default;
  };
  // Called in order, one call at a time, from any thread. Ranges do not touch each other.
  class Observer {
   public:
    virtual ~Observer() = default;
    virtual void differ(const Range& range) = 0;
  };

  enum class Verdict { kSame, kSize, kAllocation, kContent };
  struct Summary {
    Verdict verdict = Verdict::kSame;
    // kContent, kAllocation: start of the first sector or extent that differs.
    uint64_t offset = 0;
    uint64_t ranges = 0;  // number of differing ranges, and their bytes; only with `all`
    uint64_t differing = 0;
    uint64_t compared = 0;  // bytes that could not be known to be equal without reading
    std::chrono::duration<double> elapsed{};
  };

  // The operation that failed.
  enum class Stage { kMap, kRead };

  // All arguments must outlive the comparison.
  Comparison(ComparedDisk& a, ComparedDisk& b, const Options& options, Observer& observer,
             Progress& progress, Stop& stop);

  // Compares the disks. Ignores ranges that a salvage lost. If sizes differ, the longer disk must
  // have zeros past the end of the shorter one.
  Result<Summary> run();

  // The stage of the error that run() returned.
  Stage stage() const {
    const MutexLock lock(mutex_);
    return stage_;
  }

 private:
  struct Job {
    uint64_t sequence = 0;
    uint64_t begin = 0;  // offset on the disk, bytes
    uint64_t end = 0;
    std::vector<qcow2::Extent> a;  // cover the job without gap or overlap
    std::vector<qcow2::Extent> b;
  };
  struct Buffers;

  Result<bool> next(Job& job);
  // Returns false if no work is left.
  Result<bool> plan(Job& job) REQUIRES(plan_mutex_);
  void work();
  Result<std::vector<Range>> compare(const Job& job, Buffers& buffers);
  void finish(const Job& job, std::vector<Range> ranges);
  void fail_at(uint64_t offset, Stage stage, Error error);
  void tell(const Range& range) REQUIRES(mutex_);
  bool is_same(const qcow2::Extent& a, const qcow2::Extent& b) const;
  // Returns true if a part of the range is lost in one of the disks.
  bool is_lost(uint64_t at, uint64_t length) const;

  ComparedDisk& a_;
  ComparedDisk& b_;
  const Options options_;
  Observer& observer_;
  Progress& progress_;
  Stop& stop_;
  const uint64_t size_;      // of the longer disk, bytes
  const uint64_t job_size_;  // bytes; jobs do not cross multiples of it

  Mutex plan_mutex_ ACQUIRED_BEFORE(mutex_);
  uint64_t position_ GUARDED_BY(plan_mutex_) = 0;  // everything before is planned or equal
  uint64_t sequence_ GUARDED_BY(plan_mutex_) = 0;

  mutable Mutex mutex_;
  ConditionVariable done_;
  uint64_t finished_ GUARDED_BY(mutex_) = 0;  // all jobs before this number are finished
  // by job number: end, ranges
  std::map<uint64_t, std::pair<uint64_t, std::vector<Range>>> early_ GUARDED_BY(mutex_);
  std::optional<Range> open_ GUARDED_BY(mutex_);  // may still grow
  std::optional<Error> error_ GUARDED_BY(mutex_);
  uint64_t error_at_ GUARDED_BY(mutex_) = 0;
  Stage stage_ GUARDED_BY(mutex_) = Stage::kRead;
  Summary summary_ GUARDED_BY(mutex_);
  // Offset of the first finding. Data past it need not be compared.
  std::atomic<uint64_t> limit_ = UINT64_MAX;
  std::atomic<size_t> lanes_ = 0;  // threads started
};

}  // namespace vc::inspect
