// Two disks, read side by side: do they hold the same bytes, and if not, where do they differ?
//
// One thread at a time looks at both maps and cuts what has to be looked at into jobs; any number
// of threads read and compare them.  What both call zeros, or have at the same place of the same
// file, is the same without being read.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/stop.h"
#include "inspect/compared_disk.h"

namespace copy {

class Comparison {
 public:
  struct Options {
    bool strict = false;   // sizes and what is allocated must be the same, too
    bool all = false;      // goes on behind the first difference, and tells of each
    unsigned threads = 0;  // 0: one for each processor
  };

  // A stretch of bytes that differ, in whole sectors of 512 bytes (or up to the end of the disk).
  struct Range {
    uint64_t start = 0;
    uint64_t length = 0;
    uint64_t end() const { return start + length; }
    bool operator==(const Range&) const = default;
  };
  // Called in order, one at a time, from any thread; ranges do not touch each other.
  class Observer {
   public:
    virtual ~Observer() = default;
    virtual void differ(const Range& range) = 0;
  };

  enum class Verdict { kSame, kSize, kAllocation, kContent };
  struct Summary {
    Verdict verdict = Verdict::kSame;
    // kContent, kAllocation: the first byte of the first sector, or stretch, that differs.
    uint64_t offset = 0;
    uint64_t ranges = 0;  // that differ, and the bytes in them; with `all` only
    uint64_t differing = 0;
    uint64_t compared = 0;  // bytes of the disk that could not be known to be the same unread
    std::chrono::duration<double> elapsed{};
  };

  // What was under way when it failed.
  enum class Stage { kMap, kRead };

  // All of them outlive the comparison.
  Comparison(ComparedDisk& a, ComparedDisk& b, const Options& options, Observer& observer,
             Progress& progress, Stop& stop);

  // What a salvaged disk has lost is passed over.  With sizes that differ, the longer disk must
  // have zeros behind the end of the shorter one.
  qcow2::Result<Summary> run();

  // Of the error that run () has returned.
  Stage stage() const { return stage_; }

 private:
  struct Job {
    uint64_t sequence = 0;
    uint64_t begin = 0;  // bytes of the disk
    uint64_t end = 0;
    std::vector<qcow2::Extent> a;  // cover it without gap or overlap
    std::vector<qcow2::Extent> b;
  };
  struct Buffers;

  qcow2::Result<bool> next(Job& job);
  qcow2::Result<bool> plan(Job& job);
  void work();
  qcow2::Result<std::vector<Range>> compare(const Job& job, Buffers& buffers);
  void finish(const Job& job, std::vector<Range> ranges);
  void fail_at(uint64_t offset, Stage stage, qcow2::Error error);
  void tell(const Range& range);
  bool is_same(const qcow2::Extent& a, const qcow2::Extent& b) const;
  // Whether a part of it is lost in one of the disks.
  bool is_lost(uint64_t at, uint64_t length) const;

  ComparedDisk& a_;
  ComparedDisk& b_;
  const Options options_;
  Observer& observer_;
  Progress& progress_;
  Stop& stop_;
  const uint64_t size_;      // of the longer disk, bytes
  const uint64_t job_size_;  // bytes; jobs do not cross multiples of it

  std::mutex plan_mutex_;  // taken before mutex_
  uint64_t position_ = 0;  // guarded by plan_mutex_: all before it is planned, or the same
  uint64_t sequence_ = 0;  // guarded by plan_mutex_

  std::mutex mutex_;
  std::condition_variable done_;
  // All guarded by mutex_.
  uint64_t finished_ = 0;                                              // jobs, all before it are
  std::map<uint64_t, std::pair<uint64_t, std::vector<Range>>> early_;  // by number: end, ranges
  std::optional<Range> open_;                                          // may become longer
  std::optional<qcow2::Error> error_;
  uint64_t error_at_ = 0;
  Stage stage_ = Stage::kRead;
  Summary summary_;
  // What lies behind it is of no interest any more: something was found here.
  std::atomic<uint64_t> limit_ = UINT64_MAX;
  std::atomic<size_t> lanes_ = 0;  // threads that have begun
};

}  // namespace copy
