// A target to which connections can be made.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/stop.h"
#include "nbd/server_process.h"
#include "nbd/target.h"

namespace vc::nbd {

// Shared by all connections to one target. Ends a server that it started, together with the last
// connection. Thread-safe.
class NbdEndpoint {
 public:
  // Starts the server, if `target` is a command.  See ServerProcess::start for the calling thread
  // and `stop`.
  static Result<std::shared_ptr<NbdEndpoint>> open(const NbdTarget& target, const Stop& stop);

  // Returns the name for messages.
  const std::string& name() const { return name_; }
  // Returns the URI for libnbd.
  const std::string& uri() const { return uri_; }

  // Returns the server that was started; nullptr if `target` is a URI.
  ServerProcess* server() const { return server_.get(); }

  // Explains `error` of a connection that failed or was lost. If the server that this object
  // started has ended, returns an error that says how, and sets `final`: a new connection is
  // impossible.
  Error explain(Error error, bool& final) const;

 private:
  NbdEndpoint(std::string name, std::string uri) : name_(std::move(name)), uri_(std::move(uri)) {}

  const std::string name_;
  std::string uri_;
  std::vector<std::string> command_;  // of the server to start, if there is one
  std::unique_ptr<ServerProcess> server_;
};

}  // namespace vc::nbd
