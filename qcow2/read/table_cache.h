// L1 and L2 tables in memory, in slices, up to a limit in bytes.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <shared_mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace qcow2 {

// One cache serves a whole backing chain.  A table is cached in slices, so that a small limit still
// works with 2 MiB clusters, whose tables are 2 MiB too.
//
// Thread-safe.  A hit takes the lock shared and writes nothing but the mark of its own slice, so
// that readers do not wait for each other; a slice is read from storage with no lock held: two
// threads that miss the same one at once both read it, and one result stays.
//
// What goes when there is no room is found by the clock algorithm ("second chance"): the hand
// passes over a slice that was used since it last came by, and takes the first that was not.
class TableCache {
 public:
  // Bytes of the largest slice of an L2 table, and of one of an L1 table.
  static constexpr uint64_t kSliceSize = 64 << 10;
  static constexpr uint64_t kL1SliceSize = 4 << 10;
  // What a look-up in one image may need at once.  A cache that holds less than this for each layer
  // of a chain reads the same slices again and again.
  static constexpr uint64_t kLookUpSize = kSliceSize + kL1SliceSize;

  // Big-endian words of a table as they stand in the file.
  using Slice = std::vector<std::byte>;

  // `limit`: bytes of slices to keep.  Slices that callers still hold may come on top of it.
  explicit TableCache(uint64_t limit) : limit_(limit) {}

  // Raises the limit to `limit` bytes if it is lower.
  void raise_limit(uint64_t limit);

  // The `size` bytes at `at`, all of which must exist.  Slices of different sizes at one offset,
  // which only a damaged image has, are different slices.
  Result<std::shared_ptr<const Slice>> get(const Storage& storage, HostOffset at, uint64_t size);

  // What is in the file at `at` by now.  The caller sees to it that no get () of it is under way.
  void put(const Storage& storage, HostOffset at, std::shared_ptr<const Slice> slice);

  // Drops all slices of `storage`, which the caller is about to give up.
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

  void make_room();  // with mutex_ held alone

  std::shared_mutex mutex_;
  uint64_t limit_;                                          // guarded by mutex_
  Ring ring_;                                               // guarded by mutex_
  Ring::iterator hand_ = ring_.end();                       // guarded by mutex_
  std::unordered_map<Key, Ring::iterator, KeyHash> nodes_;  // guarded by mutex_
  // Guarded by mutex_.  Invariant: the sum of the sizes in ring_, at most limit_ between calls (or
  // a single slice).
  uint64_t bytes_ = 0;
};

}  // namespace qcow2
