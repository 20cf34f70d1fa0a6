// What to connect to: a server that is there, or one that is started for the occasion.
#pragma once

#include <string>
#include <vector>

namespace copy {

struct NbdTarget {
  // One of the two.
  std::string uri;  // anything that libnbd takes, TLS with it
  // "[ COMMAND ARGS… ]" without the brackets: a server that takes its socket by systemd's socket
  // activation, such as qemu-nbd and nbdkit.  Its first word is looked up in PATH.
  std::vector<std::string> command;
  // Of a URI that names none, or of the command's server; empty: the default one.
  std::string export_name = {};

  // For messages: the URI, or the command in brackets.
  std::string name() const;
};

}  // namespace copy
