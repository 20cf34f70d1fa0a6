// Shared values, found by key.
#pragma once

#include <algorithm>
#include <map>
#include <memory>

#include "base/mutex.h"
#include "base/result.h"

namespace vc::nbdkit {

// Thread-safe. A value lives as long as any caller holds it.
template <typename Key, typename Value>
class SharedValues {
 public:
  // Returns the live value of `key`, or else the result of `make() ->
  // Result<std::shared_ptr<Value>>`. Holds no lock while `make` runs, which may wait for a network.
  // If two threads make the same value concurrently, one of the values is kept.
  template <typename Make>
  Result<std::shared_ptr<Value>> get(const Key& key, Make make) {
    if (auto found = find(key)) return found;
    ASSIGN_OR_RETURN(std::shared_ptr<Value> made, make());
    const MutexLock lock(mutex_);
    std::erase_if(values_, [](const auto& it) { return it.second.expired(); });
    std::weak_ptr<Value>& entry = values_[key];
    if (auto other = entry.lock()) return other;
    entry = made;
    return made;
  }

 private:
  std::shared_ptr<Value> find(const Key& key) {
    const MutexLock lock(mutex_);
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : found->second.lock();
  }

  Mutex mutex_;
  std::map<Key, std::weak_ptr<Value>> values_ GUARDED_BY(mutex_);
};

}  // namespace vc::nbdkit
