// Values that several use at once, found by a key.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "base/result.h"

namespace filters {

// Thread-safe.  A value lives for as long as somebody uses it.
template <typename Key, typename Value>
class SharedValues {
 public:
  // The value of `key` that somebody uses, else the one that `make () ->
  // Result<std::shared_ptr<Value>>` gives.  No lock is held while it is made, which may take as
  // long as a network does: when two make the same one at once, one of them stays.
  template <typename Make>
  qcow2::Result<std::shared_ptr<Value>> get(const Key& key, Make make) {
    if (auto found = find(key)) return found;
    ASSIGN_OR_RETURN(std::shared_ptr<Value> made, make());
    const std::lock_guard lock(mutex_);
    std::erase_if(values_, [](const auto& it) { return it.second.expired(); });
    std::weak_ptr<Value>& entry = values_[key];
    if (auto other = entry.lock()) return other;
    entry = made;
    return made;
  }

 private:
  std::shared_ptr<Value> find(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : found->second.lock();
  }

  std::mutex mutex_;
  std::map<Key, std::weak_ptr<Value>> values_;  // guarded by mutex_
};

}  // namespace filters
