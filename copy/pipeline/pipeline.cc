#include "copy/pipeline/pipeline.h"

#include <algorithm>
#include <chrono>

#include "base/poll_interval.h"
#include "base/thread_group.h"

namespace vc::copy {

using Kind = Chunk::Cluster::Kind;

void Pipeline::Queue::push(Chunk* chunk) {
  {
    const MutexLock lock(mutex_);
    chunks_.push_back(chunk);
  }
  changed_.notify_one();
}

void Pipeline::Queue::finish() {
  {
    const MutexLock lock(mutex_);
    finished_ = true;
  }
  changed_.notify_all();
}

Chunk* Pipeline::Queue::pop() {
  MutexLock lock(mutex_);
  while (chunks_.empty()) {
    if (finished_ || stop_.requested()) return nullptr;
    changed_.wait_for(lock, kPollInterval);
  }
  Chunk* const chunk = chunks_.front();
  chunks_.pop_front();
  return chunk;
}

Pipeline::Pipeline(Source& source, Sink& sink, Progress& progress, Stop& stop,
                   const Options& options)
    : source_(source),
      size_(source.size() == Source::kUnknownSize ? Progress::kUnknown : source.size()),
      options_(options),
      feed_(source,
            {options.worker.geometry, options.chunk_size, options.chunks,
             options.worker.compression.type.has_value(), options.explicit_zeros, options.limit,
             options.begin, options.end, options.unit},
            stop),
      sink_(sink),
      placer_(sink),
      stop_(stop),
      progress_(progress) {}

void Pipeline::account(const Chunk& chunk) {
  uint64_t data = 0;
  uint64_t compressed = 0;
  uint64_t passed = 0;
  uint64_t zero = 0;
  for (const Chunk::Cluster& cluster : chunk.clusters) {
    data += cluster.kind == Kind::kData;
    compressed += cluster.kind == Kind::kCompressed;
    passed += cluster.passed_through;
    zero += cluster.kind == Kind::kZero;
  }
  counts_.data += data;
  counts_.compressed += compressed;
  counts_.passed_through += passed;
  counts_.found_zero += zero;
  const uint64_t bytes = chunk.end() - chunk.begin();
  const uint64_t skipped = feed_.skipped();
  const MutexLock lock(progress_mutex_);
  copied_ += bytes;
  // Skipped ranges are known before earlier chunks are done, and a chunk may later include a part
  // of them. The reported progress never decreases.
  last_update_ = std::max(last_update_, std::min(size_, copied_ + skipped));
  progress_.update(last_update_, size_);
}

Result<void> Pipeline::finish(ClusterWorker& worker, Chunk* chunk) {
  worker.encode(*chunk, stop_);
  if (stop_.requested()) return {};
  ASSIGN_OR_RETURN(const auto placed, placer_.complete(chunk));
  for (Chunk* const it : placed) {
    RETURN_IF_ERROR(sink_.write(*it));
    account(*it);
    feed_.recycle(it);
  }
  return {};
}

Result<void> Pipeline::work_alone() {
  ASSIGN_OR_RETURN(ClusterWorker worker, ClusterWorker::create(options_.worker));
  while (true) {
    ASSIGN_OR_RETURN(Chunk* const chunk, feed_.next(ChunkFeed::Wait::kYes));
    if (!chunk) return {};
    prepare(*chunk, options_.worker.geometry);
    RETURN_IF_ERROR(worker.load(source_, *chunk));
    RETURN_IF_ERROR(finish(worker, chunk));
  }
}

Result<void> Pipeline::work_on_queue(Queue& queue) {
  ASSIGN_OR_RETURN(ClusterWorker worker, ClusterWorker::create(options_.worker));
  while (Chunk* const chunk = queue.pop()) RETURN_IF_ERROR(finish(worker, chunk));
  return {};
}

Result<void> Pipeline::run() {
  const auto wake = [this] { feed_.wake(); };
  Queue queue(stop_);
  const size_t fetchers = source_.fetchers();
  {
    ThreadGroup workers(stop_, "copy", wake);
    for (unsigned i = 0; i < options_.threads; ++i)
      workers.start([&] { return fetchers == 0 ? work_alone() : work_on_queue(queue); });
    {
      ThreadGroup fetching(stop_, "copy", wake);
      for (size_t i = 0; i < fetchers; ++i)
        fetching.start([&, i] { return source_.fetch(i, feed_, options_.worker.geometry, queue); });
    }
    queue.finish();
  }
  RETURN_IF_ERROR(stop_.result());
  return options_.worker.cloning ? options_.worker.cloning->finish() : Result<void>{};
}

}  // namespace vc::copy
