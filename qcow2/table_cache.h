// L2 tables in memory, in slices, up to a limit in bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "qcow2/offset.h"
#include "qcow2/result.h"
#include "qcow2/storage.h"

namespace qcow2 {

// One cache serves a whole backing chain.  A table is cached in slices, so that a small limit still
// works with 2 MiB clusters, whose tables are 2 MiB too.
//
// Thread-safe.  The lock is held for a look-up only, never while a slice is read: two threads that
// miss the same slice at once both read it, and one result stays.
class TableCache {
 public:
  // Bytes of the largest slice.
  static constexpr uint64_t kSliceSize = 64 << 10;

  // Big-endian words of a table as they stand in the file.
  using Slice = std::vector<std::byte>;

  // `limit`: bytes of slices to keep.  Slices that callers still hold may come on top of it.
  explicit TableCache(uint64_t limit) : limit_(limit) {}

  // The `size` bytes at `at`, all of which must exist.
  Result<std::shared_ptr<const Slice>> get(const Storage& storage, HostOffset at, uint64_t size);

 private:
  struct Key {
    const Storage* storage;
    uint64_t offset;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const {
      return std::hash<const void*>{}(key.storage) ^ std::hash<uint64_t>{}(key.offset / 512);
    }
  };
  struct Node {
    Key key;
    std::shared_ptr<const Slice> slice;
  };

  const uint64_t limit_;
  std::mutex mutex_;
  std::list<Node> recent_;  // guarded by mutex_; the most recently used first
  std::unordered_map<Key, std::list<Node>::iterator, KeyHash> nodes_;  // guarded by mutex_
  // Guarded by mutex_.  Invariant: the sum of the sizes in recent_, at most limit_ between calls
  // (or a single slice).
  uint64_t bytes_ = 0;
};

}  // namespace qcow2
