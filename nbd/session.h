// A connection that is re-established when it is lost.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/stop.h"
#include "nbd/connection.h"
#include "nbd/endpoint.h"
#include "nbd/limits.h"
#include "nbd/tuning.h"

namespace vc::nbd {

// Must be used by one thread at a time.
class NbdSession {
 public:
  // Connects. Uses the retries and the timeout of `tuning`. Tries the first connection only once,
  // since the name may be mistyped.
  static Result<std::unique_ptr<NbdSession>> open(std::shared_ptr<NbdEndpoint> endpoint,
                                                  std::vector<std::string> contexts,
                                                  const NbdTuning& tuning, const Stop& stop);

  // Returns the connection, which always exists. If it is lost and not restored, all its requests
  // return errors.
  NbdConnection& connection() { return *connection_; }
  // Returns the limits of the server's disk when the session was opened.
  const NbdLimits& limits() const { return limits_; }
  const std::string& name() const { return endpoint_->name(); }
  const std::shared_ptr<NbdEndpoint>& endpoint() const { return endpoint_; }

  // Returns the number of the connection. It grows when the connection is replaced. Requests sent
  // under an earlier number get no answer, and their callbacks are not called any more.
  uint64_t generation() const { return generation_; }

  // Returns true if an error of a request means that the server goes away. Otherwise the server
  // only rejects the request.
  bool is_loss(const Error& error);

  // Resets the count of failed attempts, after an answer.
  void answered() {
    if (!checking_) failures_ = 0;
  }

  bool connected() const { return !connection_->lost(); }

  // Replaces a connection that is lost because of `why`: drains and closes it, waits, and connects
  // again. Returns an error if no retries are left, if the server that this program started has
  // ended, or if the server now has a different disk. All later calls then fail, too.
  Result<void> restore(Error why);

  // Sets the check that restore() runs on each new connection. restore() fails with the check's
  // error, unless the new connection is lost, too.
  using Check = std::function<Result<void>(NbdSession& session)>;
  void set_check(Check check) { check_ = std::move(check); }

  // Returns true if restore() has failed.
  bool given_up() const { return given_up_; }

 private:
  NbdSession(std::shared_ptr<NbdEndpoint> endpoint, std::vector<std::string> contexts,
             const NbdTuning& tuning, const Stop& stop)
      : endpoint_(std::move(endpoint)),
        contexts_(std::move(contexts)),
        retries_(tuning.retries),
        timeout_(tuning.timeout),
        stop_(stop) {}

  Result<void> try_again();
  Result<void> check_same(const NbdLimits& next) const;

  const std::shared_ptr<NbdEndpoint> endpoint_;
  const std::vector<std::string> contexts_;
  const unsigned retries_;
  const NbdConnection::Timeout timeout_;
  const Stop& stop_;
  std::unique_ptr<NbdConnection> connection_;  // never nullptr once the session is open
  NbdLimits limits_;
  uint64_t generation_ = 0;
  unsigned failures_ = 0;
  Check check_;
  bool checking_ = false;
  bool lost_in_check_ = false;
  bool given_up_ = false;
};

}  // namespace vc::nbd
