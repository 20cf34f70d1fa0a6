// One connection to an NBD server, as a C++ object.
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

namespace copy {

// Used by one thread at a time.  Never waits for the server longer than it takes to notice that
// `stop` is requested.  Once it is closed, whoever closed it, every request is an error.
//
// Nobody but us may disconnect with answers outstanding: nbdkit 1.32 aborts if one of its threads
// sends an answer then.  So whoever gives up on requests drains the connection first.
class NbdConnection {
 public:
  using Timeout = std::chrono::seconds;

  // Connects; asks for structured replies and for the metadata contexts.  An error (ETIMEDOUT) if
  // that takes longer than `timeout` (0: none).  `endpoint` and `stop` outlive the connection.
  static qcow2::Result<std::unique_ptr<NbdConnection>> open(
      const NbdEndpoint& endpoint, const std::vector<std::string>& contexts, Timeout timeout,
      const Stop& stop);

  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;
  ~NbdConnection() { close(); }

  // What the server said when the connection was made.
  const NbdLimits& limits() const { return limits_; }
  bool has_context(const std::string& name) const;

  // Send a request; `reply` and the bytes stay where they are until it is done, or the connection
  // is closed.  An error: nothing was sent, and nothing will be answered.
  qcow2::Result<void> read(std::span<std::byte> to, uint64_t at, NbdReply& reply);
  qcow2::Result<void> write(std::span<const std::byte> from, uint64_t at, NbdReply& reply,
                            bool fua = false);
  qcow2::Result<void> zero(uint64_t length, uint64_t at, NbdReply& reply, bool fast);
  qcow2::Result<void> flush(NbdReply& reply);
  qcow2::Result<void> block_status(uint64_t length, uint64_t at, nbd_extent_callback on_extent,
                                   NbdReply& reply);

  // Whether nothing more will come: the server hung up, broke the protocol, or was silent for too
  // long, or the connection was closed.
  bool lost() const;

  // Lets the connection work for a moment: answers are received and their replies done.  An error
  // when the connection is lost; ETIMEDOUT if it is so by the timeout.
  qcow2::Result<void> work();

  // Works until `reply` is done; an error, "<name>: <what>: …", if it is one.  Drains when it gives
  // up: the reply is not used any more when it returns.
  qcow2::Result<void> wait(NbdReply& reply, const std::string& what);

  // Send one request, and wait for its answer.
  qcow2::Result<void> read_now(std::span<std::byte> to, uint64_t at);
  qcow2::Result<void> flush_now();

  // Waits some seconds for the answers to all that was sent, even if `stop` is requested.  What is
  // not answered by then never will be: the connection is closed.
  void drain();

  // Says goodbye if nothing is outstanding, and does not wait for an answer.
  void close();

  const std::string& name() const { return endpoint_.name(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Close {
    void operator()(nbd_handle* handle) const { nbd_close(handle); }
  };

  NbdConnection(const NbdEndpoint& endpoint, Timeout timeout, const Stop& stop)
      : endpoint_(endpoint), timeout_(timeout), stop_(stop) {}

  qcow2::Result<void> connect(const std::vector<std::string>& contexts);
  qcow2::Result<void> learn(const std::vector<std::string>& contexts);
  qcow2::Result<void> poll();
  qcow2::Result<void> check_open();
  qcow2::Result<void> sent(int64_t cookie) const;
  bool silent_for_too_long() const;
  // "<target>: <what libnbd says of the thread's last error>".
  qcow2::Error last_error() const;
  qcow2::Error closed_error() const;
  qcow2::Error timeout_error(const char* what) const;

  const NbdEndpoint& endpoint_;
  const Timeout timeout_;
  const Stop& stop_;
  std::unique_ptr<nbd_handle, Close> handle_;  // nullptr: closed
  NbdLimits limits_;
  std::vector<std::string> contexts_;  // those of the wanted that the server has
  // Time spent waiting since an answer was last completed.  It is counted while we wait only: what
  // this process does in between, or how long it is stopped, is not the server's fault.
  Clock::duration silence_{0};
  bool slow_ = false;  // among what is outstanding is what may take longer
};

}  // namespace copy
