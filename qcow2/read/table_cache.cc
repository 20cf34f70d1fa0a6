#include "qcow2/read/table_cache.h"

#include <algorithm>

namespace vc::qcow2 {

void TableCache::raise_limit(uint64_t limit) {
  const ExclusiveLock lock(mutex_);
  limit_ = std::max(limit_, limit);
}

Result<std::shared_ptr<const TableCache::Slice>> TableCache::get(const Storage& storage,
                                                                 HostOffset at, uint64_t size) {
  const Key key{&storage, at.value(), size};
  {
    const SharedLock lock(mutex_);
    if (const auto found = nodes_.find(key); found != nodes_.end()) {
      Node& node = *found->second;
      // Writing only on a change keeps the cache line shared between processors.
      if (!node.used.load(std::memory_order_relaxed))
        node.used.store(true, std::memory_order_relaxed);
      return node.slice;
    }
  }

  Slice bytes(size);
  RETURN_IF_ERROR(read_fully(storage, at, bytes));
  auto slice = std::make_shared<const Slice>(std::move(bytes));

  const ExclusiveLock lock(mutex_);
  if (const auto found = nodes_.find(key); found != nodes_.end()) return found->second->slice;
  bytes_ += size;
  evict();
  // Inserts the slice directly after the hand, which reaches it last.
  nodes_.emplace(key, ring_.emplace(hand_, key, slice));
  return slice;
}

void TableCache::put(const Storage& storage, HostOffset at, std::shared_ptr<const Slice> slice) {
  const Key key{&storage, at.value(), slice->size()};
  const ExclusiveLock lock(mutex_);
  if (const auto found = nodes_.find(key); found != nodes_.end()) {
    found->second->slice = std::move(slice);
    return;
  }
  bytes_ += slice->size();
  evict();
  nodes_.emplace(key, ring_.emplace(hand_, key, std::move(slice)));
}

void TableCache::drop(const Storage& storage) {
  const ExclusiveLock lock(mutex_);
  for (Ring::iterator node = ring_.begin(); node != ring_.end();) {
    if (node->key.storage != &storage) {
      ++node;
      continue;
    }
    bytes_ -= node->slice->size();
    nodes_.erase(node->key);
    if (hand_ == node) ++hand_;
    node = ring_.erase(node);
  }
}

void TableCache::evict() {
  while (bytes_ > limit_ && !ring_.empty()) {
    if (hand_ == ring_.end()) hand_ = ring_.begin();
    if (hand_->used.exchange(false, std::memory_order_relaxed)) {
      ++hand_;
      continue;
    }
    bytes_ -= hand_->slice->size();
    nodes_.erase(hand_->key);
    hand_ = ring_.erase(hand_);
  }
}

}  // namespace vc::qcow2
