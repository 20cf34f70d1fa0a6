// A connection that is made again when it is lost.
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

namespace copy {

// Used by one thread at a time.
class NbdLine {
 public:
  // Of `tuning`, the retries and the timeout count.  Connects; the first time there is only one
  // try, since a name may be mistyped.
  static qcow2::Result<std::unique_ptr<NbdLine>> open(std::shared_ptr<NbdEndpoint> endpoint,
                                                      std::vector<std::string> contexts,
                                                      const NbdTuning& tuning, const Stop& stop);

  // There is always one; when it is lost, and was not or could not be made again, it answers every
  // request with an error.
  NbdConnection& connection() { return *connection_; }
  // Of the server's disk, as it was when the line was opened.
  const NbdLimits& limits() const { return limits_; }
  const std::string& name() const { return endpoint_->name(); }
  const std::shared_ptr<NbdEndpoint>& endpoint() const { return endpoint_; }

  // Of the connection; it grows when that is replaced.  What was sent under an earlier number and
  // is not answered will never be, and its callbacks are not called any more.
  uint64_t generation() const { return generation_; }

  // Whether an error that a command ended with means that the server goes away, not that it says
  // no.
  bool is_loss(const qcow2::Error& error);

  // Something was answered: the tries are counted anew.
  void answered() {
    if (!checking_) failures_ = 0;
  }

  bool connected() const { return !connection_->lost(); }

  // The connection is lost, by `why`: drains and closes it, waits, and makes a new one.  An error
  // when there are no tries left, the server that we started has ended, or the server comes back
  // with another disk; every later call is one, too, then.
  qcow2::Result<void> restore(qcow2::Error why);

  // What restore () does with a new connection before it is content: an error is restore ()'s own,
  // except that of a connection that is lost, too.
  using Check = std::function<qcow2::Result<void>(NbdLine& line)>;
  void set_check(Check check) { check_ = std::move(check); }

  // restore () failed.
  bool given_up() const { return given_up_; }

 private:
  NbdLine(std::shared_ptr<NbdEndpoint> endpoint, std::vector<std::string> contexts,
          const NbdTuning& tuning, const Stop& stop)
      : endpoint_(std::move(endpoint)),
        contexts_(std::move(contexts)),
        retries_(tuning.retries),
        timeout_(tuning.timeout),
        stop_(stop) {}

  qcow2::Result<void> try_again();
  qcow2::Result<void> check_same(const NbdLimits& next) const;

  const std::shared_ptr<NbdEndpoint> endpoint_;
  const std::vector<std::string> contexts_;
  const unsigned retries_;
  const NbdConnection::Timeout timeout_;
  const Stop& stop_;
  std::unique_ptr<NbdConnection> connection_;  // never nullptr once the line is open
  NbdLimits limits_;
  uint64_t generation_ = 0;
  unsigned failures_ = 0;
  Check check_;
  bool checking_ = false;
  bool lost_in_check_ = false;
  bool given_up_ = false;
};

}  // namespace copy
