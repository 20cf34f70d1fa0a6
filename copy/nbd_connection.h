// One connection to an NBD server, as a C++ object.
#pragma once

#include <libnbd.h>

#include <cstdint>
#include <memory>
#include <string>

#include "copy/stop.h"
#include "qcow2/result.h"

namespace copy {

// Used by one thread at a time.  Never waits for the server longer than it takes to notice that
// `stop` is requested.
class NbdConnection {
 public:
  // Connects; asks for structured replies and, with `block_status`, for base:allocation.
  static qcow2::Result<std::unique_ptr<NbdConnection>> open(const std::string& uri,
                                                            bool block_status, const Stop& stop);

  nbd_handle* handle() { return handle_.get(); }

  // Lets the connection work for a moment: replies are received and their callbacks called.  An
  // error when the server is gone.
  qcow2::Result<void> work();

  // Works until the command `cookie` (of nbd_aio_*) is done; an error if it failed.
  qcow2::Result<void> wait(int64_t cookie);

  // "<uri>: <what libnbd says of the thread's last error>".
  qcow2::Error last_error() const;
  const std::string& uri() const { return uri_; }

 private:
  struct Close {
    void operator()(nbd_handle* handle) const { nbd_close(handle); }
  };

  NbdConnection(std::string uri, const Stop& stop) : uri_(std::move(uri)), stop_(stop) {}

  std::string uri_;
  const Stop& stop_;
  std::unique_ptr<nbd_handle, Close> handle_;
};

}  // namespace copy
