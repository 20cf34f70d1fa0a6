#include "qcow2/table_cache.h"

#include <utility>

namespace qcow2 {

Result<std::shared_ptr<const TableCache::Slice>> TableCache::get(const Storage& storage,
                                                                 HostOffset at, uint64_t size) {
  const Key key{&storage, at.value()};
  {
    std::lock_guard lock(mutex_);
    if (const auto found = nodes_.find(key); found != nodes_.end()) {
      recent_.splice(recent_.begin(), recent_, found->second);
      return found->second->slice;
    }
  }

  Slice bytes(size);
  RETURN_IF_ERROR(read_fully(storage, at, bytes));
  auto slice = std::make_shared<const Slice>(std::move(bytes));

  std::lock_guard lock(mutex_);
  if (const auto found = nodes_.find(key); found != nodes_.end()) return found->second->slice;
  recent_.push_front(Node{key, slice});
  nodes_.emplace(key, recent_.begin());
  bytes_ += size;
  while (bytes_ > limit_ && recent_.size() > 1) {
    bytes_ -= recent_.back().slice->size();
    nodes_.erase(recent_.back().key);
    recent_.pop_back();
  }
  return slice;
}

}  // namespace qcow2
