// The unreadable ranges of a damaged disk, with reasons.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "storage/offset.h"

namespace vc::qcow2 {

enum class LossReason {
  kUnreadable,  // the storage returned an error for the data
  kPastEnd,     // the data is past the end of the file
  kStream,      // a compressed cluster cannot be decoded
  kTable,       // the mapping table is unreadable or past the end of the file
  kEntry,       // the mapping entry is invalid
  kReferences,  // the mapping table is all zeros and seems to have been overwritten
  kOverlap,     // metadata uses the same clusters
};

// Returns a word for JSON: "past-end".
const char* to_string(LossReason reason);
// Returns a text for users: "lies past the end of the file".
const char* describe(LossReason reason);

struct Loss {
  GuestOffset at;
  uint64_t length = 0;  // bytes
  LossReason reason = LossReason::kUnreadable;
  GuestOffset end() const { return at + length; }
  bool operator==(const Loss&) const = default;
};

// Ranges do not overlap; if two are added for one byte, the first reason is kept.  There are at
// most kMost ranges: beyond that, neighbours are joined across the gap between them, so that
// everything outside of the list was read successfully.
//
// Thread-safe.
class Losses {
 public:
  static constexpr size_t kMost = 1 << 16;

  void add(GuestOffset at, uint64_t length, LossReason reason);
  // Returns the ranges in disk order, limited to `size`; joins neighbours with the same reason.
  std::vector<Loss> list(uint64_t size) const;
  // Returns the first range that ends after `at`; its length is 0 if there is none.
  Loss next(GuestOffset at) const;

 private:
  void join_near() REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::map<uint64_t, Loss> ranges_ GUARDED_BY(mutex_);  // by offset
  uint64_t gap_ GUARDED_BY(mutex_) = 0;  // largest gap, in bytes, across which ranges are joined
};

}  // namespace vc::qcow2
