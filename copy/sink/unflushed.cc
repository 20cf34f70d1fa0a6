#include "copy/sink/unflushed.h"

namespace vc::copy {

namespace {

// Limits before a flush: bounds the work of a recovery.
constexpr uint64_t kMostBytes = uint64_t{4} << 30;
constexpr size_t kMostRecords = 65536;

}  // namespace

uint64_t Unflushed::epoch() const {
  const MutexLock lock(mutex_);
  return epoch_;
}

bool Unflushed::add(uint64_t epoch, const std::vector<Record>& records) {
  const MutexLock lock(mutex_);
  if (epoch != epoch_) return false;
  for (const Record& record : records) {
    if (!record.zero) bytes_ += record.length;
    // Merges adjacent zero records, which have no digests.
    if (record.zero && records_.size() > in_flush_ && records_.back().zero &&
        records_.back().at + records_.back().length == record.at)
      records_.back().length += record.length;
    else
      records_.push_back(record);
  }
  return true;
}

std::vector<Unflushed::Record> Unflushed::begin_epoch() {
  const MutexLock lock(mutex_);
  ++epoch_;
  return records_;
}

bool Unflushed::claim_flush() {
  const MutexLock lock(mutex_);
  if (claimed_ || (bytes_ < kMostBytes && records_.size() < kMostRecords)) return false;
  claimed_ = true;
  return true;
}

void Unflushed::flushing() {
  const MutexLock lock(mutex_);
  in_flush_ = records_.size();
}

void Unflushed::flushed() {
  const MutexLock lock(mutex_);
  records_.erase(records_.begin(), records_.begin() + static_cast<ptrdiff_t>(in_flush_));
  in_flush_ = 0;
  bytes_ = 0;
  for (const Record& record : records_)
    if (!record.zero) bytes_ += record.length;
  claimed_ = false;
}

}  // namespace vc::copy
