// One connection to an NBD server, as a C++ object.
#pragma once

#include <libnbd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "copy/nbd_endpoint.h"
#include "copy/stop.h"
#include "qcow2/result.h"

namespace copy {

// libnbd's own NBD_NULL_COMPLETION is C99, and no C++.
constexpr nbd_completion_callback kNoCompletion{nullptr, nullptr, nullptr};

// Used by one thread at a time.  Never waits for the server longer than it takes to notice that
// `stop` is requested.
class NbdConnection {
 public:
  // Connects; asks for structured replies and for the metadata contexts.  `endpoint` and `stop`
  // outlive the connection.
  static qcow2::Result<std::unique_ptr<NbdConnection>> open(
      const NbdEndpoint& endpoint, const std::vector<std::string>& contexts, const Stop& stop);

  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;
  // Says goodbye, and does not wait for an answer.
  ~NbdConnection();

  nbd_handle* handle() { return handle_.get(); }

  // Whether the server hung up: nothing more will come.
  bool lost();

  // Lets the connection work for a moment: replies are received and their callbacks called.  An
  // error when the server is gone.
  qcow2::Result<void> work();

  // Works until the command `cookie` (of nbd_aio_*) is done; an error if it failed.
  qcow2::Result<void> wait(int64_t cookie);

  // "<target>: <what libnbd says of the thread's last error>".
  qcow2::Error last_error() const;
  const std::string& name() const { return endpoint_.name(); }

 private:
  struct Close {
    void operator()(nbd_handle* handle) const { nbd_close(handle); }
  };

  NbdConnection(const NbdEndpoint& endpoint, const Stop& stop) : endpoint_(endpoint), stop_(stop) {}

  const NbdEndpoint& endpoint_;
  const Stop& stop_;
  std::unique_ptr<nbd_handle, Close> handle_;
};

}  // namespace copy
