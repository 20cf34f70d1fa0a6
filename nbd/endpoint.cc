#include "nbd/endpoint.h"

#include <fmt/format.h>

#include <cerrno>

#include "nbd/nbdkit_hint.h"
#include "nbd/uri.h"

namespace vc::nbd {

Result<std::shared_ptr<NbdEndpoint>> NbdEndpoint::open(const NbdTarget& target, const Stop& stop) {
  std::shared_ptr<NbdEndpoint> endpoint(new NbdEndpoint(target.name(), target.uri));
  if (!target.command.empty()) {
    ASSIGN_OR_RETURN(endpoint->server_,
                     with_context(ServerProcess::start(target.command, stop), target.name()));
    endpoint->uri_ = endpoint->server_->uri();
    endpoint->command_ = target.command;
  }
  if (!target.export_name.empty()) {
    ASSIGN_OR_RETURN(endpoint->uri_, uri_with_export(endpoint->uri_, target.export_name));
  }
  return endpoint;
}

Error NbdEndpoint::explain(Error error, bool& final) const {
  final = false;
  if (!server_ || error.kind() == Error::Kind::kCancelled) return error;
  const auto how = server_->ending();
  if (!how) return error;
  final = true;
  const std::string hint = nbdkit_hint(command_);
  return Error::protocol(ECONNRESET, fmt::format("{}: the server has ended: {}{}{}", name_, *how,
                                                 hint.empty() ? "" : ": ", hint));
}

}  // namespace vc::nbd
