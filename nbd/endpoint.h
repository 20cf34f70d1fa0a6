// A target that connections can be made to.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/stop.h"
#include "nbd/server_process.h"
#include "nbd/target.h"

namespace copy {

// Shared by all connections to one target; the server that was started for it ends with the last
// of them.  Thread-safe.
class NbdEndpoint {
 public:
  // Starts the server if there is one to start (see ServerProcess::start for the thread and
  // `stop`).
  static qcow2::Result<std::shared_ptr<NbdEndpoint>> open(const NbdTarget& target,
                                                          const Stop& stop);

  // For messages.
  const std::string& name() const { return name_; }
  // For libnbd.
  const std::string& uri() const { return uri_; }

  // That was started; nullptr: it was there.
  ServerProcess* server() const { return server_.get(); }

  // `error` of a connection that could not be made or was lost; if the server that we started has
  // ended, the error that says so, and how.  `final` is set then: there is nobody to connect to.
  qcow2::Error explain(qcow2::Error error, bool& final) const;

 private:
  NbdEndpoint(std::string name, std::string uri) : name_(std::move(name)), uri_(std::move(uri)) {}

  const std::string name_;
  std::string uri_;
  std::vector<std::string> command_;  // of the server
  std::unique_ptr<ServerProcess> server_;
};

}  // namespace copy
