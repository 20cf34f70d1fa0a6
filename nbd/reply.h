// What a server answers to one request.
#pragma once

#include <libnbd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>

#include "base/result.h"

namespace copy {

// libnbd holds pointers to it from the moment at which a request is sent until it is done () or the
// connection is closed: it stays where it is meanwhile.
//
// A server may cut the answer to a read into chunks, in any order.  libnbd takes an answer whose
// chunks leave gaps, or overlap, for a success; here it is an error (EPROTO).
class NbdReply {
 public:
  NbdReply() = default;
  NbdReply(const NbdReply&) = delete;
  NbdReply& operator=(const NbdReply&) = delete;

  // For the next request.
  void reset();
  // The same for a read of `length` bytes at `at`: its answer has to bring each of them once.
  void expect(uint64_t at, uint64_t length);

  bool done() const { return done_; }
  // 0: the server said yes.  When it is done.
  int errnum() const { return errnum_; }
  std::chrono::steady_clock::time_point when() const { return when_; }
  // "<what>: <why>", for an errnum () that is not 0.
  qcow2::Error error(const std::string& what) const;

  nbd_completion_callback on_completion();
  nbd_chunk_callback on_chunk();

  // What the callbacks do.
  void complete(int errnum);
  // A chunk of a read: bytes [at, at + length) of the disk have come.
  void add(uint64_t at, uint64_t length);

 private:
  bool done_ = false;
  bool lie_ = false;  // the chunks are not what was asked for
  int errnum_ = 0;
  std::chrono::steady_clock::time_point when_;
  // Of a read, bytes of the disk.
  uint64_t reached_ = 0;                // all before it has come
  uint64_t end_ = 0;                    // of what was asked for
  std::map<uint64_t, uint64_t> ahead_;  // ends of what came out of order, by their starts
};

}  // namespace copy
