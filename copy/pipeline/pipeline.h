// The threads between a source and a destination.
//
//     local file:   feed -> [ read, look for zeros, compress -> placer -> write ] x threads
//     stream:       feed -> [ read ] -> queue, and on as below
//     NBD server:   feed -> [ fetch ] x connections -> queue
//                        -> [ look for zeros, compress -> placer -> write ] x threads
//
// Reading a local file is mostly copying from the page cache: the thread that reads a chunk goes on
// with it while it is in the processor's cache.  A server answers when it likes, so there the
// waiting is done by other threads.
//
// Nobody waits for another's chunk: a thread that finishes a chunk out of turn leaves it with the
// placer and goes on; whoever finishes the one that was missing gets both to write.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>

#include "base/progress.h"
#include "base/rate_limit.h"
#include "base/stop.h"
#include "copy/pipeline/cluster_worker.h"
#include "copy/pipeline/placer.h"
#include "copy/pipeline/sink.h"
#include "copy/source/any_source.h"
#include "copy/source/chunk_feed.h"
#include "copy/source/local_source.h"
#include "copy/source/nbd_source.h"
#include "copy/source/stream_source.h"

namespace copy {

class Pipeline {
 public:
  struct Options {
    ClusterWorker::Options worker;
    uint64_t chunk_size = 1 << 20;  // bytes
    size_t chunks = 8;
    unsigned threads = 1;
    bool explicit_zeros = false;  // see ChunkFeed
    RateLimit* limit = nullptr;   // outlives the pipeline; nullptr: none
  };

  // What became of the clusters.
  struct Counts {
    std::atomic<uint64_t> data = 0;
    std::atomic<uint64_t> compressed = 0;
    std::atomic<uint64_t> passed_through = 0;
    std::atomic<uint64_t> found_zero = 0;  // read, and only zeros
  };

  Pipeline(Source& source, Sink& sink, Progress& progress, Stop& stop, const Options& options);

  // Runs to the end: when it returns without an error, all chunks are written.
  qcow2::Result<void> run(const LocalSource& source);
  qcow2::Result<void> run(NbdSource& source);
  // The stream's size is known afterwards.
  qcow2::Result<void> run(StreamSource& source);
  // Whichever of the three it is.
  qcow2::Result<void> run(const AnySource& source);

  const Counts& counts() const { return counts_; }

 private:
  // Between those who fetch and those who work.  Bounded by the number of chunks that there are.
  class Queue final : public NbdSource::Fetched {
   public:
    explicit Queue(const Stop& stop) : stop_(stop) {}
    void push(Chunk* chunk) override;
    void finish();
    Chunk* pop();  // nullptr: finished and empty, or stopped

   private:
    const Stop& stop_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Chunk*> chunks_;  // guarded by mutex_
    bool finished_ = false;      // guarded by mutex_
  };

  qcow2::Result<void> work_on_local(const LocalSource& source);
  qcow2::Result<void> work_on_queue(Queue& queue);
  qcow2::Result<void> read_stream(StreamSource& source, Queue& queue);
  qcow2::Result<void> finish(ClusterWorker& worker, Chunk* chunk);
  void account(const Chunk& chunk);

  const uint64_t size_;  // of the source's disk, bytes; Progress::kUnknown for a stream
  const Options options_;
  ChunkFeed feed_;
  Sink& sink_;
  Placer placer_;
  Stop& stop_;
  Counts counts_;

  std::mutex progress_mutex_;
  Progress& progress_;        // guarded by progress_mutex_
  uint64_t copied_ = 0;       // guarded by progress_mutex_; guest bytes
  uint64_t last_update_ = 0;  // guarded by progress_mutex_
};

}  // namespace copy
