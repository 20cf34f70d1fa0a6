// A server for writing tests.
#pragma once

#include <string>
#include <vector>

#include "tests/support/nbd_server.h"

namespace vc::test {

class WritingServer {
 public:
  // `parameters`: the plugin's parameters, the image first, followed by options of nbdkit.
  explicit WritingServer(const std::vector<std::string>& parameters,
                         const std::vector<std::string>& options = {});

  const std::string& socket() const { return server_.socket(); }
  std::string log() const { return server_.log(); }
  int pid() { return server_.process().pid(); }
  std::string uri() const { return server_.uri(); }

  // Sends SIGTERM, and returns when the image is complete. Throws std::runtime_error after a
  // minute.
  void stop();
  void kill() { server_.process().kill(); }

 private:
  support::NbdServer server_;
};

}  // namespace vc::test
