// A server to connect to: either running already, or to be started.
#pragma once

#include <string>
#include <vector>

namespace vc::nbd {

struct NbdTarget {
  // Exactly one of `uri` and `command` is set.
  std::string uri;  // any URI that libnbd accepts, including TLS
  // "[ COMMAND ARGS… ]" without the brackets. The server must support systemd's socket activation,
  // as qemu-nbd and nbdkit do. Its first word is looked up in PATH.
  std::vector<std::string> command;
  // The export, for a URI that names none or for the command's server; empty: the default export.
  std::string export_name = {};

  // Returns the URI, or the command in brackets, for messages.
  std::string name() const;
};

}  // namespace vc::nbd
