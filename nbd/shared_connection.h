// One connection that many threads use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/cancel.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/stop.h"
#include "nbd/connection.h"
#include "nbd/endpoint.h"
#include "nbd/limits.h"
#include "nbd/reply.h"
#include "nbd/status_reply.h"
#include "storage/descriptor.h"

namespace vc::nbd {

// Thread-safe. A thread of its own sends the requests of all other threads, so that many are
// outstanding at a time.
//
// The connection is lost for ever when the server hangs up, does not answer in time, or sends an
// answer that does not match the request: all requests fail from then on. It is not made again,
// since a server that was started again may have lost data that it had not flushed.
class NbdSharedConnection {
 public:
  // Called once, by any thread, with the error that the connection was lost by.
  using OnLoss = std::function<void(const Error& error)>;

  // Connects as NbdConnection::open does. An error that is returned is not passed to `on_loss`.
  static Result<std::unique_ptr<NbdSharedConnection>> open(const NbdEndpoint& endpoint,
                                                           NbdConnection::Timeout timeout,
                                                           OnLoss on_loss);
  NbdSharedConnection(const NbdSharedConnection&) = delete;
  NbdSharedConnection& operator=(const NbdSharedConnection&) = delete;
  // Disconnects. No request may be outstanding.
  ~NbdSharedConnection();

  const NbdLimits& limits() const { return limits_; }
  // Returns whether the server reports which ranges are allocated.
  bool tells_allocation() const { return tells_allocation_; }

  // Send a request and wait for its answer.
  Result<void> read(std::span<std::byte> to, uint64_t at);
  Result<void> write(std::span<const std::byte> from, uint64_t at, bool fua);
  Result<void> zero(uint64_t length, uint64_t at, ZeroFlags flags);
  Result<void> trim(uint64_t length, uint64_t at, bool fua);
  Result<void> flush();
  // Returns the allocation of a first part of [at, at + length), or of all of it. An answer that
  // makes no sense is not an error: then the whole range is unknown.
  Result<std::vector<StatusStretch>> allocation(uint64_t length, uint64_t at, bool one);

 private:
  using Send = std::function<Result<void>(NbdConnection& connection, NbdReply& reply)>;

  // Lives on the stack of the thread that waits for it.
  struct Request {
    const char* name;
    const Send& send;
    bool checked;  // whether a wrong answer ends the connection
    NbdReply reply = {};
    std::optional<Result<void>> result = {};  // guarded by the mutex; set once
    ConditionVariable done = {};
  };

  explicit NbdSharedConnection(OnLoss on_loss) : on_loss_(std::move(on_loss)) {}

  Result<void> call(Request& request);
  void wake() const;
  void run();
  // The steps of the thread.
  Result<void> serve();
  bool send_queued();
  Result<void> finish_answered();
  void lose(const Error& error);
  void finish(Request& request, Result<void> result);

  const OnLoss on_loss_;
  const Cancel never_;
  const Stop stop_{never_};
  NbdLimits limits_;
  bool tells_allocation_ = false;
  Descriptor wake_;  // an eventfd

  // Of the thread.
  std::unique_ptr<NbdConnection> connection_;
  std::vector<Request*> outstanding_;

  Mutex mutex_;
  std::vector<Request*> queue_ GUARDED_BY(mutex_);
  std::optional<Error> lost_ GUARDED_BY(mutex_);
  bool closing_ GUARDED_BY(mutex_) = false;

  std::thread thread_;
};

}  // namespace vc::nbd
