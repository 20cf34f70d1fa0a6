// A connection that is made again when it is lost.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "copy/nbd_connection.h"
#include "copy/nbd_endpoint.h"
#include "copy/stop.h"
#include "qcow2/result.h"

namespace copy {

// Used by one thread at a time.
class NbdLine {
 public:
  // How often in a row, without an answer in between, a lost connection is made again before that
  // is an error: after 0.1, 0.2, 0.4 … seconds, at most 5 each.  With 5 that gives a server three
  // seconds to come back.
  static constexpr unsigned kDefaultRetries = 5;

  // Connects; the first time there is only one try, since a name may be mistyped.
  static qcow2::Result<std::unique_ptr<NbdLine>> open(std::shared_ptr<NbdEndpoint> endpoint,
                                                      std::vector<std::string> contexts,
                                                      unsigned retries, const Stop& stop);

  NbdConnection& connection() { return *connection_; }
  nbd_handle* handle() { return connection_->handle(); }
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

  // Closes the connection: but connected () nothing else may be called.
  void drop() { connection_.reset(); }
  bool connected() const { return connection_ != nullptr; }

  // The connection is lost, by `why`: closes it, waits, and makes a new one.  An error when there
  // are no tries left, the server that we started has ended, or the server comes back with another
  // disk.  There may be no connection then: nothing else may be called.
  qcow2::Result<void> restore(qcow2::Error why);

  // What restore () does with a new connection before it is content: an error is restore ()'s own,
  // except that of a connection that is lost, too.
  using Check = std::function<qcow2::Result<void>(NbdLine& line)>;
  void set_check(Check check) { check_ = std::move(check); }

  // restore () failed.
  bool given_up() const { return given_up_; }

 private:
  NbdLine(std::shared_ptr<NbdEndpoint> endpoint, std::vector<std::string> contexts,
          unsigned retries, const Stop& stop)
      : endpoint_(std::move(endpoint)),
        contexts_(std::move(contexts)),
        retries_(retries),
        stop_(stop) {}

  qcow2::Result<void> try_again();
  qcow2::Result<void> check_same(NbdConnection& connection) const;

  const std::shared_ptr<NbdEndpoint> endpoint_;
  const std::vector<std::string> contexts_;
  const unsigned retries_;
  const Stop& stop_;
  std::unique_ptr<NbdConnection> connection_;
  int64_t size_ = 0;     // bytes
  int64_t minimum_ = 0;  // the minimum block size, bytes; 0: none was named
  uint64_t generation_ = 0;
  unsigned failures_ = 0;
  Check check_;
  bool checking_ = false;
  bool lost_in_check_ = false;
  bool given_up_ = false;
};

}  // namespace copy
