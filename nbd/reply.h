// The answer of a server to one request.
#pragma once

#include <libnbd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>

#include "base/result.h"

namespace vc::nbd {

// libnbd holds pointers to the object from the sending of the request until done() or the end of
// the connection. The object must not move in between.
//
// A server may split the answer to a read into chunks, in any order. libnbd accepts chunks that
// leave gaps or overlap. This class reports them as an error (EPROTO).
class NbdReply {
 public:
  NbdReply() = default;
  NbdReply(const NbdReply&) = delete;
  NbdReply& operator=(const NbdReply&) = delete;

  // Prepares for the next request.
  void reset();
  // Prepares for a read of `length` bytes at `at`: the answer must contain each byte exactly once.
  void expect(uint64_t at, uint64_t length);

  bool done() const { return done_; }
  // Returns the errno of the answer; 0 for success. Valid once done().
  int errnum() const { return errnum_; }
  // Returns whether the answer violated the protocol.  Valid once done ().
  bool lied() const;
  std::chrono::steady_clock::time_point when() const { return when_; }
  // Returns the error "<what>: <why>". errnum() must not be 0.
  Error error(const std::string& what) const;

  nbd_completion_callback on_completion();
  nbd_chunk_callback on_chunk();

  // Called by libnbd's callbacks.
  void complete(int errnum);
  // Records a chunk of a read: bytes [at, at + length) of the disk.
  void add(uint64_t at, uint64_t length);

 private:
  bool done_ = false;
  bool lie_ = false;  // the chunks do not match the request
  int errnum_ = 0;
  std::chrono::steady_clock::time_point when_;
  // For a read: offsets in the disk, bytes.
  uint64_t reached_ = 0;                // all bytes before it have arrived
  uint64_t end_ = 0;                    // of the requested range
  std::map<uint64_t, uint64_t> ahead_;  // ends of chunks that arrived out of order, by start
};

}  // namespace vc::nbd
