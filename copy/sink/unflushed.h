// What a server has taken and not yet promised to keep.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace copy {

// A server that dies may lose what it said yes to, back to its last flush.  What that was is kept
// here with digests, so that it can be looked for when the server is there again.
//
// A recovery begins an epoch.  A thread that wrote while one began cannot know which server said
// yes to it, the one before or the one after: what it wrote counts only if add () finds the epoch
// that it started in.
//
// Thread-safe.
class Unflushed {
 public:
  struct Record {
    uint64_t at = 0;      // bytes
    uint64_t length = 0;  // bytes
    bool zero = false;    // zeros were asked for; there is no digest
    uint64_t digest = 0;
  };

  uint64_t epoch() const;

  // False, and nothing is kept: another epoch has begun.
  bool add(uint64_t epoch, const std::vector<Record>& records);

  // A connection was made anew.  Returns all that must be there.
  std::vector<Record> begin_epoch();

  // Whether there is so much that it should be flushed, and nobody is about to: then the caller is.
  bool claim_flush();
  // Before a flush is sent.
  void flushing();
  // All that was here at flushing () is safe.
  void flushed();

 private:
  mutable std::mutex mutex_;
  // All guarded by mutex_.
  uint64_t epoch_ = 0;
  std::vector<Record> records_;
  size_t in_flush_ = 0;  // the first so many records are under a flush
  uint64_t bytes_ = 0;   // of data
  bool claimed_ = false;
};

}  // namespace copy
