// nbdkit with a filter of ours on top, and the stock log filter right beneath it.
#pragma once

#include <string>
#include <vector>

#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::test {

// Path of the filter `name`: nbdkit loads it by that.
std::string filter(const std::string& name);

// Path of our plugin.
std::string plugin();

// What `nbdkit --filter=<name> <arguments>` with `--run true` says, whether it comes up or not.
support::Outcome try_filter(const std::string& name, const std::vector<std::string>& arguments);

class FilteredServer {
 public:
  // `beneath`: the filters under the log, then the plugin, then parameters of all of them.  No
  // filter of ours where the name is empty.
  FilteredServer(const std::string& name, const std::vector<std::string>& beneath);

  const std::string& socket() const { return server_.socket(); }
  support::NbdServer& server() { return server_; }

  // The writes, zeros, trims and flushes that came out beneath the filter since the last call, in
  // the order in which they began: "write 0+4096", "zero 4096+8192 trim fua", "trim …", "flush".
  std::vector<std::string> requests();
  // The same with their ends, as "… done".
  std::vector<std::string> events();

 private:
  support::TempDirectory folder_;
  size_t read_ = 0;  // bytes of the log
  support::NbdServer server_;
};

}  // namespace vc::test
