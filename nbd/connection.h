// One connection to an NBD server.
#pragma once

#include <libnbd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/stop.h"
#include "nbd/endpoint.h"
#include "nbd/limits.h"
#include "nbd/reply.h"

namespace vc::nbd {

// The flags of a request that writes zeros.
struct ZeroFlags {
  bool fast = false;      // fail if zeroing takes as long as writing
  bool allocate = false;  // do not make a hole
  bool fua = false;       // the zeros must be on disk before the answer
};

// Must be used by one thread at a time.  Never waits long for the server once `stop` is requested.
// After the connection is closed, by either side, every request is an error.
//
// A client must not disconnect with answers outstanding: nbdkit 1.32 aborts if one of its threads
// sends an answer then.  So drain the connection before giving up on requests.
class NbdConnection {
 public:
  using Timeout = std::chrono::seconds;

  // Connects, and negotiates structured replies and the metadata contexts. Returns an error
  // (ETIMEDOUT) if that takes longer than `timeout` (0: no timeout). `endpoint` and `stop` must
  // outlive the connection.
  static Result<std::unique_ptr<NbdConnection>> open(const NbdEndpoint& endpoint,
                                                     const std::vector<std::string>& contexts,
                                                     Timeout timeout, const Stop& stop);

  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;
  ~NbdConnection() { close(); }

  // Returns the limits that the server announced on connection.
  const NbdLimits& limits() const { return limits_; }
  bool has_context(const std::string& name) const;

  // Send a request. `reply` and the bytes must not move until the reply is done or the connection
  // is closed. After an error, nothing was sent, and no answer will come.
  Result<void> read(std::span<std::byte> to, uint64_t at, NbdReply& reply);
  Result<void> write(std::span<const std::byte> from, uint64_t at, NbdReply& reply,
                     bool fua = false);
  Result<void> zero(uint64_t length, uint64_t at, NbdReply& reply, ZeroFlags flags);
  Result<void> trim(uint64_t length, uint64_t at, NbdReply& reply, bool fua = false);
  Result<void> flush(NbdReply& reply);
  // With `one`, the server needs to describe only the first stretch.
  Result<void> block_status(uint64_t length, uint64_t at, nbd_extent_callback on_extent,
                            NbdReply& reply, bool one = false);

  // Returns true if no more answers will come: the server hung up, violated the protocol or timed
  // out, or the connection was closed.
  bool lost() const;

  // Sends and receives for a short time, and completes the replies of received answers. Returns an
  // error if the connection is lost; ETIMEDOUT if a timeout is the cause.
  Result<void> work();

  // Sets a descriptor that ends the wait of work() when it becomes readable; -1 for none. The
  // caller keeps ownership.
  void wake_by(int fd) { wake_ = fd; }

  // Calls work() until `reply` is done. Returns the reply's error, if any, as "<name>: <what>: …".
  // After any other error, drains the connection: `reply` is not used after the return.
  Result<void> wait(NbdReply& reply, const std::string& what);

  // Send one request, and wait for its answer.
  Result<void> read_now(std::span<std::byte> to, uint64_t at);
  Result<void> flush_now();

  // Waits some seconds for all outstanding answers, even if `stop` is requested. If some are still
  // missing, closes the connection.
  void drain();

  // Disconnects from the server if no request is outstanding, without waiting for an answer.
  void close();

  const std::string& name() const { return endpoint_.name(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Close {
    void operator()(nbd_handle* handle) const { nbd_close(handle); }
  };

  NbdConnection(const NbdEndpoint& endpoint, Timeout timeout, const Stop& stop)
      : endpoint_(endpoint), timeout_(timeout), stop_(stop) {}

  Result<void> connect(const std::vector<std::string>& contexts);
  Result<void> learn(const std::vector<std::string>& contexts);
  Result<void> poll();
  int poll_events() const;
  Result<void> check_open();
  Result<void> sent(int64_t cookie) const;
  bool silent_for_too_long() const;
  // Returns "<target>: <libnbd's message for this thread's last error>".
  Error last_error() const;
  Error closed_error() const;
  Error timeout_error(const char* what) const;

  const NbdEndpoint& endpoint_;
  const Timeout timeout_;
  const Stop& stop_;
  std::unique_ptr<nbd_handle, Close> handle_;  // nullptr: closed
  NbdLimits limits_;
  std::vector<std::string> contexts_;  // the requested contexts that the server has
  // Time spent waiting since the last answer.  Counts waits only: the time that this process spends
  // elsewhere or stopped is not the server's fault.
  Clock::duration silence_{0};
  bool slow_ = false;  // the outstanding requests include slow ones
  int wake_ = -1;
};

}  // namespace vc::nbd
