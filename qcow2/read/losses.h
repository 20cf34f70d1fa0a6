// What could not be read of a damaged disk: ranges of the guest's bytes, and why.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "storage/offset.h"

namespace qcow2 {

enum class LossReason {
  kUnreadable,  // the storage returned an error for the data
  kPastEnd,     // the data lie past the end of the file
  kStream,      // a compressed cluster cannot be decoded
  kTable,       // the table that maps it cannot be read, or lies past the end of the file
  kEntry,       // the entry that maps it is invalid
  kReferences,  // the table that maps it is all zeros and seems to have been overwritten
  kOverlap,     // metadata lie in the same place
};

// A word for JSON: "past-end".
const char* to_string(LossReason reason);
// For a person: "lies past the end of the file".
const char* describe(LossReason reason);

struct Loss {
  GuestOffset at;
  uint64_t length = 0;  // bytes
  LossReason reason = LossReason::kUnreadable;
  GuestOffset end() const { return at + length; }
  bool operator==(const Loss&) const = default;
};

// Ranges do not overlap; where two are added for one byte the first reason stays.  There are at
// most kMost of them: past that, neighbours are joined across what lies between, so that whatever
// is outside of the list was read.
//
// Thread-safe.
class Losses {
 public:
  static constexpr size_t kMost = 1 << 16;

  void add(GuestOffset at, uint64_t length, LossReason reason);
  // In the order of the disk, neighbours with one reason joined, cut at `size` of the disk.
  std::vector<Loss> list(uint64_t size) const;
  // The first range that ends after `at`; its length is 0 if there is none.
  Loss next(GuestOffset at) const;

 private:
  void join_near();

  mutable std::mutex mutex_;
  std::map<uint64_t, Loss> ranges_;  // guarded by mutex_; by offset
  uint64_t gap_ = 0;                 // guarded by mutex_; bytes that do not keep two ranges apart
};

}  // namespace qcow2
