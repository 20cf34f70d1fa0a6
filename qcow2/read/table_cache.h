// Caches slices of L1 and L2 tables, up to a limit in bytes.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// One cache serves a whole backing chain.  Tables are cached in slices, so that a small limit works
// with 2 MiB clusters, whose tables have 2 MiB, too.
//
// Thread-safe.  A hit takes the lock shared and writes only the mark of its own slice, so that
// readers do not block each other.  Slices are read from storage without a lock: if two threads
// miss the same slice, both read it, and one result is kept.
//
// Eviction uses the clock algorithm ("second chance"): the hand skips slices that were used since
// its last pass, and evicts the first unused one.
class TableCache {
 public:
  // The largest slice of an L2 table, and the slice of an L1 table, in bytes.
  static constexpr uint64_t kSliceSize = 64 << 10;
  static constexpr uint64_t kL1SliceSize = 4 << 10;
  // The most bytes that a look-up in one image needs at once.  A cache with less than this per
  // layer of a chain reads the same slices again and again.
  static constexpr uint64_t kLookUpSize = kSliceSize + kL1SliceSize;

  // Big-endian words of a table, as in the file.
  using Slice = std::vector<std::byte>;

  // `limit`: bytes of slices to keep.  Slices that callers still hold may exceed it.
  explicit TableCache(uint64_t limit) : limit_(limit) {}

  // Raises the limit to `limit` bytes if it is lower.
  void raise_limit(uint64_t limit);

  // Returns the `size` bytes at `at`, all of which must exist.  Slices of different sizes at one
  // offset, which only damaged images have, are different slices.
  Result<std::shared_ptr<const Slice>> get(const Storage& storage, HostOffset at, uint64_t size);

  // Stores the current content of the file at `at`.  The caller must ensure that no get () of it
  // runs.
  void put(const Storage& storage, HostOffset at, std::shared_ptr<const Slice> slice);

  // Drops all slices of `storage`, before the caller destroys it.
  void drop(const Storage& storage);

 private:
  struct Key {
    const Storage* storage;
    uint64_t offset;
    uint64_t size;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const {
      return std::hash<const void*>{}(key.storage) ^ std::hash<uint64_t>{}(key.offset / 512);
    }
  };
  struct Node {
    explicit Node(Key k, std::shared_ptr<const Slice> s) : key(k), slice(std::move(s)) {}
    Key key;
    std::shared_ptr<const Slice> slice;
    std::atomic<bool> used{false};
  };
  using Ring = std::list<Node>;

  void evict() REQUIRES(mutex_);

  SharedMutex mutex_;
  uint64_t limit_ GUARDED_BY(mutex_);
  Ring ring_ GUARDED_BY(mutex_);
  Ring::iterator hand_ GUARDED_BY(mutex_) = ring_.end();
  std::unordered_map<Key, Ring::iterator, KeyHash> nodes_ GUARDED_BY(mutex_);
  // Invariant: the sum of the sizes in ring_; at most limit_ between calls (or a single slice).
  uint64_t bytes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace vc::qcow2
