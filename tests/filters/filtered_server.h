// Runs nbdkit with one of our filters on top, and nbdkit's log filter directly below it.
#pragma once

#include <string>
#include <vector>

#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::test {

// Returns the path of the filter `name`, by which nbdkit loads it.
std::string filter(const std::string& name);

// Returns the output of `nbdkit --filter=<name> <arguments> --run true`, which may fail.
support::Outcome try_filter(const std::string& name, const std::vector<std::string>& arguments);

class FilteredServer {
 public:
  // `beneath`: the filters below the log filter, the plugin, and all parameters.  With an empty
  // name, none of our filters is used.
  FilteredServer(const std::string& name, const std::vector<std::string>& beneath);

  const std::string& socket() const { return server_.socket(); }
  support::NbdServer& server() { return server_; }

  // Returns the writes, zeros, trims and flushes below the filter since the last call, in the order
  // in which they began: "write 0+4096", "zero 4096+8192 trim fua", "trim …", "flush".
  std::vector<std::string> requests();
  // Same, with the ends of requests as "… done".
  std::vector<std::string> events();

 private:
  support::TempDirectory folder_;
  size_t read_ = 0;  // bytes of the log
  support::NbdServer server_;
};

}  // namespace vc::test
