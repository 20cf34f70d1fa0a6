#include "bench/schedule.h"

#include <fmt/format.h>

#include <algorithm>

namespace vc::bench {

namespace {

constexpr std::chrono::milliseconds kLongestWait(5);

// SplitMix64, S. Vigna's public-domain generator.
uint64_t draw(uint64_t& state) {
  uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

Result<void> Schedule::check(const Load& load, uint64_t size) {
  size = std::min(size, load.span);
  if (load.block == 0 || load.block > size)
    return fail(Error::invalid(
        fmt::format("requests of {} bytes do not fit a disk of {} bytes", load.block, size)));
  if (load.offset > size - load.block)
    return fail(
        Error::invalid(fmt::format("a request of {} bytes at {} ends past the disk's {} bytes",
                                   load.block, load.offset, size)));
  return {};
}

Schedule::Schedule(const Load& load, uint64_t size)
    : load_(load),
      size_(std::min(size, load.span)),
      begin_(Clock::now()),
      next_(load.offset),
      random_(load.seed) {}

void Schedule::start() {
  begin_ = Clock::now();
}

uint64_t Schedule::next_place() {
  const uint64_t last = size_ - load_.block;
  if (load_.random) {
    const uint64_t places = (last - load_.offset) / load_.stride() + 1;
    return load_.offset + draw(random_) % places * load_.stride();
  }
  const uint64_t at = next_;
  // Wraps around at the end, as qemu-img bench does. A request that does not fit starts over.
  next_ = load_.stride() > UINT64_MAX - next_ ? 0 : (next_ + load_.stride()) % size_;
  if (next_ > last) next_ = 0;
  return at;
}

bool Schedule::flush_is_due() const {
  if (!load_.write || load_.flush_interval == 0 || issued_ == flushed_at_) return false;
  const uint64_t left = load_.count ? *load_.count - issued_ : issued_;
  return left % load_.flush_interval == 0;
}

Schedule::Turn Schedule::take() {
  const MutexLock lock(mutex_);
  if (ended_) return {Turn::Kind::kEnd};
  if (flushing_ && load_.drain) return {Turn::Kind::kWait};
  if (flush_is_due()) {
    if (load_.drain && in_flight_ > 0) return {Turn::Kind::kWait};
    flushing_ = true;
    flushed_at_ = issued_;
    return {Turn::Kind::kFlush};
  }
  const bool late = load_.duration && Clock::now() - begin_ >= *load_.duration;
  if (late || issued_ == load_.count) {
    ended_ = true;
    return {Turn::Kind::kEnd};
  }
  ++issued_;
  ++in_flight_;
  return {Turn::Kind::kRequest, next_place()};
}

void Schedule::done() {
  const MutexLock lock(mutex_);
  if (--in_flight_ == 0) changed_.notify_all();
}

void Schedule::flushed() {
  const MutexLock lock(mutex_);
  flushing_ = false;
  changed_.notify_all();
}

void Schedule::end() {
  const MutexLock lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

void Schedule::wait() {
  MutexLock lock(mutex_);
  if (!ended_ && (flushing_ || in_flight_ > 0)) changed_.wait_for(lock, kLongestWait);
}

uint64_t Schedule::issued() const {
  const MutexLock lock(mutex_);
  return issued_;
}

}  // namespace vc::bench
