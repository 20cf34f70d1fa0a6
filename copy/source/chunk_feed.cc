#include "copy/source/chunk_feed.h"
#include "base/poll_interval.h"
#include "base/rounding.h"

#include <algorithm>
#include <chrono>

namespace vc::copy {

using qcow2::Extent;

ChunkFeed::ChunkFeed(Source& source, const Options& options, const Stop& stop)
    : source_(source),
      options_(options),
      stop_(stop),
      unit_(std::max({options.geometry.cluster_size(), source.alignment(), options.unit})),
      clusters_at_once_(std::max(options.chunk_size, unit_) / unit_ * unit_ >>
                        options.geometry.cluster_bits()),
      position_(options.begin),
      skipped_(options.begin) {
  const size_t bytes = clusters_at_once_ << options.geometry.cluster_bits();
  for (size_t i = 0; i < options.chunks; ++i) {
    auto chunk = std::make_unique<Chunk>();
    chunk->bytes = AlignedBuffer(bytes);
    if (options.compress) chunk->packed = AlignedBuffer(bytes);
    chunk->clusters.reserve(clusters_at_once_);
    free_.push_back(chunk.get());
    chunks_.push_back(std::move(chunk));
  }
}

// Maps the next part of the source. Leaves ahead_ empty at the end of the part.
Result<void> ChunkFeed::refill() {
  ahead_.clear();
  ahead_at_ = 0;
  const uint64_t left = end() - position_.value();
  if (left == 0) return {};
  return source_.map(position_, left, ahead_);
}

// Moves position_ to the first byte that may be data. Returns false at the end of the part.
Result<bool> ChunkFeed::find_data() {
  while (true) {
    for (; ahead_at_ < ahead_.size(); ++ahead_at_) {
      const Extent& extent = ahead_[ahead_at_];
      if (!passes_over(extent)) return true;
      skipped_ += extent.end() - position_;
      position_ = extent.end();
    }
    if (position_.value() == end()) return false;
    if (stop_.requested()) return false;
    RETURN_IF_ERROR(refill());
  }
}

Result<bool> ChunkFeed::plan(Chunk& chunk) {
  chunk.extents.clear();
  chunk.pieces.clear();
  ASSIGN_OR_RETURN(const bool found, find_data());
  if (!found) return false;

  // The first cluster of the data may begin in a skipped range. That part reads as zeros.
  const GuestOffset begin(round_down(position_.value(), unit_));
  if (begin < position_) {
    Extent zeros;
    zeros.guest = begin;
    zeros.length = position_ - begin;
    zeros.kind = qcow2::ExtentKind::kZero;
    chunk.extents.push_back(zeros);
    skipped_ -= zeros.length;
  }
  const GuestOffset limit(
      std::min(end(), begin.value() + (clusters_at_once_ << options_.geometry.cluster_bits())));
  GuestOffset data_end = position_;
  while (position_ < limit) {
    if (ahead_at_ == ahead_.size()) RETURN_IF_ERROR(refill());
    Extent& front = ahead_[ahead_at_];
    Extent part = front;
    part.length = std::min(front.length, limit - position_);
    // A hole that extends past the chunk ends the chunk; find_data() skips it.
    if (passes_over(front) && front.end() >= limit) break;
    chunk.extents.push_back(part);
    position_ = part.end();
    if (part.length == front.length) {
      ++ahead_at_;
    } else {
      if (front.kind == qcow2::ExtentKind::kData || front.preallocated) front.host += part.length;
      front.guest = position_;
      front.length -= part.length;
    }
    if (!passes_over(part)) data_end = position_;
  }

  // The chunk has whole units: the rest of the last unit belongs to the next chunk.
  const GuestOffset unit_end(std::min(end(), round_up(data_end.value(), unit_)));
  while (chunk.extents.back().guest >= unit_end) {
    skipped_ += chunk.extents.back().length;
    chunk.extents.pop_back();
  }
  Extent& last = chunk.extents.back();
  if (last.end() > unit_end) {
    skipped_ += last.end() - unit_end;
    last.length = unit_end - last.guest;
  } else if (last.end() < unit_end) {
    Extent zeros;
    zeros.guest = last.end();
    zeros.length = unit_end - last.end();
    zeros.kind = qcow2::ExtentKind::kZero;
    // The hole that ended the chunk begins in the chunk's last unit.
    Extent& hole = ahead_[ahead_at_];
    if (hole.preallocated) hole.host += zeros.length;
    hole.guest += zeros.length;
    hole.length -= zeros.length;
    position_ = hole.guest;
    if (hole.length == 0) ++ahead_at_;
    chunk.extents.push_back(zeros);
  }

  chunk.sequence = sequence_++;
  chunk.first = options_.geometry.cluster_of(begin);
  chunk.clusters.assign(options_.geometry.clusters_for(chunk.end() - begin), {});
  return true;
}

Result<Chunk*> ChunkFeed::next(Wait wait) {
  MutexLock lock(mutex_);
  while (free_.empty() && !exhausted_ && !stop_.requested()) {
    if (wait == Wait::kNo) return nullptr;
    recycled_.wait_for(lock, kPollInterval);
  }
  if (exhausted_ || stop_.requested()) return nullptr;
  Chunk* const chunk = free_.back();
  auto planned = plan(*chunk);
  if (!planned) return fail(std::move(planned).error());
  if (!*planned) {
    exhausted_ = true;
    recycled_.notify_all();
    return nullptr;
  }
  free_.pop_back();
  lock.unlock();
  if (options_.limit) options_.limit->take(chunk->end() - chunk->begin(), stop_);
  return chunk;
}

void ChunkFeed::recycle(Chunk* chunk) {
  {
    const MutexLock lock(mutex_);
    free_.push_back(chunk);
  }
  recycled_.notify_one();
}

bool ChunkFeed::exhausted() const {
  const MutexLock lock(mutex_);
  return exhausted_;
}

uint64_t ChunkFeed::skipped() const {
  const MutexLock lock(mutex_);
  return skipped_;
}

}  // namespace vc::copy
