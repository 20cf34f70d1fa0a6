#include "copy/nbd_connection.h"

#include <fmt/format.h>

#include <cerrno>
#include <string_view>

namespace copy {

using qcow2::Error;
using qcow2::Result;

namespace {

// Milliseconds; how long Ctrl-C may wait for a silent server.
constexpr int kPatience = 50;

}  // namespace

Error NbdConnection::last_error() const {
  const char* const text = nbd_get_error();
  std::string_view message = text ? text : "unknown error";
  // libnbd begins with the name of the function that failed, which tells a user nothing.
  if (message.starts_with("nbd_")) {
    const size_t colon = message.find(": ");
    if (colon != std::string_view::npos) message.remove_prefix(colon + 2);
  }
  // A server that hangs up leaves no errno.
  const int errnum = nbd_get_errno();
  return Error::protocol(errnum == 0 ? ECONNRESET : errnum, fmt::format("{}: {}", uri_, message));
}

Result<std::unique_ptr<NbdConnection>> NbdConnection::open(const std::string& uri,
                                                           bool block_status, const Stop& stop) {
  std::unique_ptr<NbdConnection> connection(new NbdConnection(uri, stop));
  connection->handle_.reset(nbd_create());
  nbd_handle* const nbd = connection->handle();
  if (!nbd) return qcow2::fail(connection->last_error());
  // Whoever names a socket file in a URI on this machine may use it; TLS as the URI says.
  nbd_set_uri_allow_local_file(nbd, true);
  // A read that fails ends the copy: nobody will see what its buffer holds.
  nbd_set_pread_initialize(nbd, false);
  if (block_status && nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
    return qcow2::fail(connection->last_error());
  if (nbd_aio_connect_uri(nbd, uri.c_str()) != 0) return qcow2::fail(connection->last_error());
  while (nbd_aio_is_connecting(nbd) == 1) {
    if (stop.requested()) return qcow2::fail(Error::cancelled());
    if (nbd_poll(nbd, kPatience) < 0) return qcow2::fail(connection->last_error());
  }
  if (nbd_aio_is_ready(nbd) != 1 && nbd_aio_is_processing(nbd) != 1) {
    // Closed without an error: the server hung up.
    return qcow2::fail(
        Error::protocol(ECONNRESET, fmt::format("{}: the server closed the connection", uri)));
  }
  return connection;
}

Result<void> NbdConnection::work() {
  if (stop_.requested()) return qcow2::fail(Error::cancelled());
  nbd_handle* const nbd = handle();
  if (nbd_aio_is_dead(nbd) == 1 || nbd_aio_is_closed(nbd) == 1)
    return qcow2::fail(
        Error::protocol(ECONNRESET, fmt::format("{}: the server closed the connection", uri_)));
  if (nbd_poll(nbd, kPatience) < 0) return qcow2::fail(last_error());
  return {};
}

Result<void> NbdConnection::wait(int64_t cookie) {
  if (cookie < 0) return qcow2::fail(last_error());
  while (true) {
    const int done = nbd_aio_command_completed(handle(), static_cast<uint64_t>(cookie));
    if (done < 0) return qcow2::fail(last_error());
    if (done > 0) return {};
    RETURN_IF_ERROR(work());
  }
}

}  // namespace copy
