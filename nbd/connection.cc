#include "nbd/connection.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "base/poll_interval.h"

namespace vc::nbd {

namespace {

// The longest time that counts for one wait: the process may have been stopped in between.
constexpr std::chrono::milliseconds kLongestWait{500};

// The factor of the timeout for requests that may make a server write much.
constexpr int kSlowFactor = 10;

// For answers that are no longer needed: the longest total wait, and the longest wait without an
// answer.
constexpr std::chrono::seconds kDrain{10};
constexpr std::chrono::seconds kDrainSilence{2};

// Detects a TCP peer that vanishes without closing: sends up to three probes, 5 seconds apart,
// after 15 seconds of silence. Has no effect on other sockets.
void keep_alive(int fd) {
  const auto set = [fd](int level, int option, int value) {
    ::setsockopt(fd, level, option, &value, sizeof value);
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 15);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  // The limit for data that is sent and not acknowledged, in milliseconds.
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
}

}  // namespace

Error NbdConnection::last_error() const {
  const char* const text = nbd_get_error();
  std::string_view message = text ? text : "unknown error";
  // libnbd's messages start with the name of the failed function, which does not help a user.
  if (message.starts_with("nbd_")) {
    const size_t colon = message.find(": ");
    if (colon != std::string_view::npos) message.remove_prefix(colon + 2);
  }
  // A hang-up of the server leaves no errno.
  const int errnum = nbd_get_errno();
  return Error::protocol(errnum == 0 ? ECONNRESET : errnum, fmt::format("{}: {}", name(), message));
}

Error NbdConnection::closed_error() const {
  return Error::protocol(ECONNRESET, fmt::format("{}: the server closed the connection", name()));
}

Error NbdConnection::timeout_error(const char* what) const {
  return Error::protocol(ETIMEDOUT, fmt::format("{}: {} within {} second{} (--timeout)", name(),
                                                what, timeout_.count() * (slow_ ? kSlowFactor : 1),
                                                timeout_.count() == 1 && !slow_ ? "" : "s"));
}

bool NbdConnection::silent_for_too_long() const {
  return timeout_.count() != 0 && silence_ > timeout_ * (slow_ ? kSlowFactor : 1);
}

Result<std::unique_ptr<NbdConnection>> NbdConnection::open(const NbdEndpoint& endpoint,
                                                           const std::vector<std::string>& contexts,
                                                           Timeout timeout, const Stop& stop) {
  std::unique_ptr<NbdConnection> connection(new NbdConnection(endpoint, timeout, stop));
  RETURN_IF_ERROR(connection->connect(contexts));
  RETURN_IF_ERROR(connection->learn(contexts));
  return connection;
}

Result<void> NbdConnection::connect(const std::vector<std::string>& contexts) {
  handle_.reset(nbd_create());
  if (!handle_) return fail(last_error());
  nbd_handle* const nbd = handle_.get();
  // A user who names a local file (a socket, a TLS key) in a URI may use that file.
  nbd_set_uri_allow_local_file(nbd, true);
  for (const std::string& context : contexts)
    if (nbd_add_meta_context(nbd, context.c_str()) != 0) return fail(last_error());
  const auto start = Clock::now();
  if (nbd_aio_connect_uri(nbd, endpoint_.uri().c_str()) != 0) return fail(last_error());
  while (nbd_aio_is_connecting(nbd) == 1) {
    if (stop_.requested()) return fail(Error::cancelled());
    if (timeout_.count() != 0 && Clock::now() - start > timeout_)
      return fail(timeout_error("the server has not completed the handshake"));
    if (nbd_poll(nbd, static_cast<int>(kPollInterval.count())) < 0) return fail(last_error());
  }
  // Closed without an error: the server hung up.
  if (nbd_aio_is_ready(nbd) != 1 && nbd_aio_is_processing(nbd) != 1) return fail(closed_error());
  keep_alive(nbd_aio_get_fd(nbd));
  return {};
}

// Reads the limits and contexts now: if the connection is lost later, libnbd does not return them.
Result<void> NbdConnection::learn(const std::vector<std::string>& contexts) {
  ASSIGN_OR_RETURN(limits_, NbdLimits::of(handle_.get(), name()));
  for (const std::string& context : contexts)
    if (nbd_can_meta_context(handle_.get(), context.c_str()) == 1) contexts_.push_back(context);
  return {};
}

bool NbdConnection::has_context(const std::string& name) const {
  return std::find(contexts_.begin(), contexts_.end(), name) != contexts_.end();
}

void NbdConnection::close() {
  // Disconnects properly, so that the server does not complain about a vanished client.
  if (handle_ && nbd_aio_is_ready(handle_.get()) == 1 && nbd_aio_in_flight(handle_.get()) == 0)
    nbd_aio_disconnect(handle_.get(), 0);
  handle_.reset();
}

bool NbdConnection::lost() const {
  return !handle_ || nbd_aio_is_dead(handle_.get()) == 1 || nbd_aio_is_closed(handle_.get()) == 1;
}

Result<void> NbdConnection::check_open() {
  if (lost()) return fail(closed_error());
  if (nbd_aio_in_flight(handle_.get()) > 0) return {};
  silence_ = {};
  slow_ = false;
  return {};
}

Result<void> NbdConnection::sent(int64_t cookie) const {
  if (cookie < 0) return fail(last_error());
  return {};
}

Result<void> NbdConnection::read(std::span<std::byte> to, uint64_t at, NbdReply& reply) {
  RETURN_IF_ERROR(check_open());
  reply.expect(at, to.size());
  return sent(nbd_aio_pread_structured(handle_.get(), to.data(), to.size(), at, reply.on_chunk(),
                                       reply.on_completion(), 0));
}

Result<void> NbdConnection::write(std::span<const std::byte> from, uint64_t at, NbdReply& reply,
                                  bool fua) {
  RETURN_IF_ERROR(check_open());
  reply.reset();
  return sent(nbd_aio_pwrite(handle_.get(), from.data(), from.size(), at, reply.on_completion(),
                             fua ? LIBNBD_CMD_FLAG_FUA : 0));
}

Result<void> NbdConnection::zero(uint64_t length, uint64_t at, NbdReply& reply, ZeroFlags flags) {
  RETURN_IF_ERROR(check_open());
  reply.reset();
  slow_ = true;
  const uint32_t bits = (flags.fast ? LIBNBD_CMD_FLAG_FAST_ZERO : 0u) |
                        (flags.allocate ? LIBNBD_CMD_FLAG_NO_HOLE : 0u) |
                        (flags.fua ? LIBNBD_CMD_FLAG_FUA : 0u);
  return sent(nbd_aio_zero(handle_.get(), length, at, reply.on_completion(), bits));
}

Result<void> NbdConnection::trim(uint64_t length, uint64_t at, NbdReply& reply, bool fua) {
  RETURN_IF_ERROR(check_open());
  reply.reset();
  return sent(nbd_aio_trim(handle_.get(), length, at, reply.on_completion(),
                           fua ? LIBNBD_CMD_FLAG_FUA : 0));
}

Result<void> NbdConnection::flush(NbdReply& reply) {
  RETURN_IF_ERROR(check_open());
  reply.reset();
  slow_ = true;
  return sent(nbd_aio_flush(handle_.get(), reply.on_completion(), 0));
}

Result<void> NbdConnection::block_status(uint64_t length, uint64_t at,
                                         nbd_extent_callback on_extent, NbdReply& reply, bool one) {
  RETURN_IF_ERROR(check_open());
  reply.reset();
  return sent(nbd_aio_block_status(handle_.get(), length, at, on_extent, reply.on_completion(),
                                   one ? LIBNBD_CMD_FLAG_REQ_ONE : 0));
}

// Like nbd_poll (), but also returns when `wake_` becomes readable (nbd_poll2 () exists from libnbd
// 1.16 on). After a notification the state may be another: only one is given.
int NbdConnection::poll_events() const {
  nbd_handle* const nbd = handle_.get();
  constexpr int kWait = static_cast<int>(kPollInterval.count());
  if (wake_ < 0) return nbd_poll(nbd, kWait);
  const unsigned direction = nbd_aio_get_direction(nbd);
  short events = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) events |= POLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) events |= POLLOUT;
  std::array<pollfd, 2> waiting{{{nbd_aio_get_fd(nbd), events, 0}, {wake_, POLLIN, 0}}};
  // On an error or a signal, `revents` stay 0.
  (void)::poll(waiting.data(), waiting.size(), kWait);
  const int happened = waiting[0].revents;
  const bool readable = (happened & (POLLIN | POLLHUP | POLLERR | POLLNVAL)) != 0;
  if (readable && (events & POLLIN) != 0) return nbd_aio_notify_read(nbd);
  if (happened != 0) return nbd_aio_notify_write(nbd);
  return 0;
}

// Works for a moment on an open connection, and updates the count of its silence.
Result<void> NbdConnection::poll() {
  const int before = nbd_aio_in_flight(handle_.get());
  const auto start = Clock::now();
  if (poll_events() < 0) return fail(last_error());
  if (nbd_aio_in_flight(handle_.get()) < before)
    silence_ = {};
  else
    silence_ += std::min<Clock::duration>(Clock::now() - start, kLongestWait);
  return {};
}

Result<void> NbdConnection::work() {
  if (stop_.requested()) return fail(Error::cancelled());
  if (lost()) return fail(closed_error());
  RETURN_IF_ERROR(poll());
  if (nbd_aio_in_flight(handle_.get()) == 0 || !silent_for_too_long()) return {};
  close();
  return fail(timeout_error("the server has not answered"));
}

Result<void> NbdConnection::wait(NbdReply& reply, const std::string& what) {
  while (!reply.done()) {
    if (auto worked = work(); !worked) {
      drain();
      return worked;
    }
  }
  if (reply.errnum() != 0) return fail(reply.error(fmt::format("{}: {}", name(), what)));
  return {};
}

Result<void> NbdConnection::read_now(std::span<std::byte> to, uint64_t at) {
  NbdReply reply;
  RETURN_IF_ERROR(read(to, at, reply));
  return wait(reply, fmt::format("read at {:#x}", at));
}

Result<void> NbdConnection::flush_now() {
  NbdReply reply;
  RETURN_IF_ERROR(flush(reply));
  return wait(reply, "flush");
}

void NbdConnection::drain() {
  const auto end = Clock::now() + kDrain;
  silence_ = {};
  while (!lost() && nbd_aio_in_flight(handle_.get()) > 0 && silence_ < kDrainSilence &&
         Clock::now() < end)
    if (!poll()) break;
  if (lost() || nbd_aio_in_flight(handle_.get()) > 0) close();
}

}  // namespace vc::nbd
