// The threads between a source and a destination.
//
//     local file:   feed -> [ load, detect zeros, compress -> placer -> write ] x threads
//     others:       feed -> [ fetch ] x fetchers -> queue
//                        -> [ detect zeros, compress -> placer -> write ] x threads
//
// A stream has one fetcher, an NBD server one for each connection.
//
// Reading a local file is mostly copying from the page cache: the thread that reads a chunk
// continues with the chunk while it is in the processor's cache. For a server, separate threads
// wait for the replies.
//
// No thread waits for another thread's chunk. A thread that finishes a chunk out of order leaves it
// with the placer and continues. The thread that finishes the missing chunk gets both to write.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>

#include "base/mutex.h"
#include "base/progress.h"
#include "base/rate_limit.h"
#include "base/stop.h"
#include "copy/pipeline/cluster_worker.h"
#include "copy/pipeline/placer.h"
#include "copy/pipeline/sink.h"
#include "copy/source/chunk_feed.h"
#include "copy/source/source.h"

namespace vc::copy {

class Pipeline {
 public:
  struct Options {
    ClusterWorker::Options worker;
    uint64_t chunk_size = 1 << 20;  // bytes
    size_t chunks = 8;
    unsigned threads = 1;
    bool explicit_zeros = false;  // see ChunkFeed
    RateLimit* limit = nullptr;   // outlives the pipeline; nullptr: none
    uint64_t begin = 0;           // the part of the source; see ChunkFeed
    uint64_t end = Source::kUnknownSize;
    uint64_t unit = 1;  // see ChunkFeed
  };

  // Counts of clusters by how they were stored.
  struct Counts {
    std::atomic<uint64_t> data = 0;
    std::atomic<uint64_t> compressed = 0;
    std::atomic<uint64_t> passed_through = 0;
    std::atomic<uint64_t> found_zero = 0;  // read, and all zeros
  };

  Pipeline(Source& source, Sink& sink, Progress& progress, Stop& stop, const Options& options);

  // Runs the pipeline to the end, once. On success, all chunks are written, and the size of a
  // stream is known.
  Result<void> run();

  const Counts& counts() const { return counts_; }

 private:
  // Queue from fetching threads to workers. Bounded by the number of chunks.
  class Queue final : public Source::Fetched {
   public:
    explicit Queue(const Stop& stop) : stop_(stop) {}
    void push(Chunk* chunk) override;
    void finish();
    Chunk* pop();  // nullptr if finished and empty, or stopped

   private:
    const Stop& stop_;
    Mutex mutex_;
    ConditionVariable changed_;
    std::deque<Chunk*> chunks_ GUARDED_BY(mutex_);
    bool finished_ GUARDED_BY(mutex_) = false;
  };

  Result<void> work_alone();
  Result<void> work_on_queue(Queue& queue);
  Result<void> finish(ClusterWorker& worker, Chunk* chunk);
  void account(const Chunk& chunk);

  Source& source_;
  const uint64_t size_;  // of the source's disk, bytes; Progress::kUnknown for a stream
  const Options options_;
  ChunkFeed feed_;
  Sink& sink_;
  Placer placer_;
  Stop& stop_;
  Counts counts_;

  Mutex progress_mutex_;
  Progress& progress_ GUARDED_BY(progress_mutex_);
  uint64_t copied_ GUARDED_BY(progress_mutex_) = 0;  // guest bytes
  uint64_t last_update_ GUARDED_BY(progress_mutex_) = 0;
};

}  // namespace vc::copy
