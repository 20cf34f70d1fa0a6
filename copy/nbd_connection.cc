#include "copy/nbd_connection.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <string_view>

namespace copy {

using qcow2::Error;
using qcow2::Result;

namespace {

// Milliseconds; how long Ctrl-C may wait for a silent server.
constexpr int kPatience = 50;

// A machine that vanishes says no goodbye: over TCP, after 15 seconds without a word it is asked
// three times, each 5 seconds, whether it is there.  Not so for other sockets, where this has no
// effect.
void keep_alive(int fd) {
  const auto set = [fd](int level, int option, int value) {
    ::setsockopt(fd, level, option, &value, sizeof value);
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 15);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  // The same for what was sent and is not acknowledged, in milliseconds.
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
}

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
  return Error::protocol(errnum == 0 ? ECONNRESET : errnum, fmt::format("{}: {}", name(), message));
}

Result<std::unique_ptr<NbdConnection>> NbdConnection::open(const NbdEndpoint& endpoint,
                                                           const std::vector<std::string>& contexts,
                                                           const Stop& stop) {
  std::unique_ptr<NbdConnection> connection(new NbdConnection(endpoint, stop));
  connection->handle_.reset(nbd_create());
  nbd_handle* const nbd = connection->handle();
  if (!nbd) return qcow2::fail(connection->last_error());
  // Whoever names a file in a URI on this machine (a socket, a TLS key) may use it.
  nbd_set_uri_allow_local_file(nbd, true);
  // A read that fails ends the copy, or is done again: nobody will see what its buffer holds.
  nbd_set_pread_initialize(nbd, false);
  for (const std::string& context : contexts)
    if (nbd_add_meta_context(nbd, context.c_str()) != 0)
      return qcow2::fail(connection->last_error());
  if (nbd_aio_connect_uri(nbd, endpoint.uri().c_str()) != 0)
    return qcow2::fail(connection->last_error());
  while (nbd_aio_is_connecting(nbd) == 1) {
    if (stop.requested()) return qcow2::fail(Error::cancelled());
    if (nbd_poll(nbd, kPatience) < 0) return qcow2::fail(connection->last_error());
  }
  if (nbd_aio_is_ready(nbd) != 1 && nbd_aio_is_processing(nbd) != 1) {
    // Closed without an error: the server hung up.
    return qcow2::fail(Error::protocol(
        ECONNRESET, fmt::format("{}: the server closed the connection", endpoint.name())));
  }
  keep_alive(nbd_aio_get_fd(nbd));
  return connection;
}

NbdConnection::~NbdConnection() {
  // A server that is told goodbye does not complain of a client that vanished.
  if (handle_ && nbd_aio_is_ready(handle()) == 1 && nbd_aio_in_flight(handle()) == 0)
    nbd_aio_disconnect(handle(), 0);
}

bool NbdConnection::lost() {
  return nbd_aio_is_dead(handle()) == 1 || nbd_aio_is_closed(handle()) == 1;
}

Result<void> NbdConnection::work() {
  if (stop_.requested()) return qcow2::fail(Error::cancelled());
  if (lost())
    return qcow2::fail(
        Error::protocol(ECONNRESET, fmt::format("{}: the server closed the connection", name())));
  if (nbd_poll(handle(), kPatience) < 0) return qcow2::fail(last_error());
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
