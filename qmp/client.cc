#include "qmp/client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/json_members.h"
#include "base/printable.h"
#include "base/retry.h"

namespace vc::qmp {

namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr size_t kLongestMessage = 500;  // bytes of a message of QEMU that are shown
constexpr int kDeepest = 100;            // values in values; deeper ones are dropped

// Returns nullopt if nothing listens.
Result<std::optional<Descriptor>> open_socket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(Error::invalid(
        fmt::format("{}: the path of a socket has at most {} bytes: change to its folder, and use "
                    "a relative path",
                    path, sizeof address.sun_path - 1)));
  std::memcpy(address.sun_path, path.data(), path.size());
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail(Error::system(errno, path));
  if (retry(::connect, socket.get(), reinterpret_cast<const sockaddr*>(&address),
            socklen_t{sizeof address}) == 0)
    return socket;
  if (errno == ECONNREFUSED || errno == ENOENT) return std::nullopt;
  if (errno == EAGAIN)
    return fail(Error::system(
        EBUSY, path + ": other programs wait for this socket already: give QEMU a second one"));
  return fail(Error::system(errno, path));
}

}  // namespace

Result<std::unique_ptr<Client>> Client::connect(const std::string& path, Limits limits) {
  ASSIGN_OR_RETURN(auto socket, open_socket(path));
  if (!socket) return nullptr;
  std::unique_ptr<Client> client(new Client(std::move(*socket), "QEMU of " + path, limits));
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(client->socket_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0)
    client->process_ = peer.pid;
  RETURN_IF_ERROR(client->greet());
  return client;
}

Result<void> Client::greet() {
  const auto greeting = receive(Clock::now() + limits_.greeting);
  if (!greeting && greeting.error().errnum() == ETIMEDOUT)
    return fail(Error::system(
        ETIMEDOUT, name_ +
                       ": does not greet: another program may be connected to the socket: end its "
                       "connection, or give QEMU a second one (-qmp)"));
  RETURN_IF_ERROR(greeting);
  if (!greeting->contains("QMP"))
    return fail(Error::protocol(EPROTO, name_ + ": is no QMP socket: it sends no greeting"));
  RETURN_IF_ERROR(execute("qmp_capabilities"));
  return {};
}

Result<void> Client::wait_for(short events, Deadline deadline) {
  pollfd polled{socket_.get(), events, 0};
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) return fail(Error::system(ETIMEDOUT, name_ + ": does not answer"));
    const int ready = ::poll(&polled, 1, static_cast<int>(std::min<long>(left.count(), 1000)));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail(Error::system(errno, name_));
  }
}

Result<void> Client::send(const std::string& line, Deadline deadline) {
  for (size_t at = 0; at < line.size();) {
    const ssize_t put =
        retry(::send, socket_.get(), line.data() + at, line.size() - at, MSG_NOSIGNAL);
    if (put < 0 && errno == EAGAIN) {
      RETURN_IF_ERROR(wait_for(POLLOUT, deadline));
    } else if (put < 0) {
      return fail(Error::system(errno, name_));
    } else {
      at += static_cast<size_t>(put);
    }
  }
  return {};
}

Result<json> Client::receive(Deadline deadline) {
  size_t searched = 0;
  size_t end = 0;
  while ((end = received_.find('\n', searched)) == std::string::npos) {
    searched = received_.size();
    if (searched > limits_.line)
      return fail(Error::protocol(
          EPROTO, fmt::format("{}: sends a line of more than {} bytes", name_, limits_.line)));
    RETURN_IF_ERROR(wait_for(POLLIN, deadline));
    std::array<char, 16384> piece;
    const ssize_t got = retry(::recv, socket_.get(), piece.data(), piece.size(), 0);
    if (got < 0 && errno == EAGAIN) continue;
    if (got < 0) return fail(Error::system(errno, name_));
    if (got == 0) return fail(Error::system(ECONNRESET, name_ + ": has ended"));
    received_.append(piece.data(), static_cast<size_t>(got));
  }
  json object = json::parse(
      received_.begin(), received_.begin() + static_cast<std::ptrdiff_t>(end),
      [](int depth, json::parse_event_t, json&) { return depth < kDeepest; },
      /*allow_exceptions=*/false);
  received_.erase(0, end + 1);
  if (!object.is_object())
    return fail(Error::protocol(EPROTO, name_ + ": sends a line that is not a JSON object"));
  return object;
}

Result<json> Client::answer_to(const std::string& command, uint64_t id) {
  const auto deadline = Clock::now() + limits_.answer;
  while (true) {
    // A server that sends events all the time does not prolong the wait.
    if (Clock::now() > deadline) return fail(Error::system(ETIMEDOUT, name_ + ": does not answer"));
    ASSIGN_OR_RETURN(json object, receive(deadline));
    if (object.contains("event")) continue;
    const auto of = object.find("id");
    if (of == object.end() || *of != id)
      return fail(Error::protocol(EPROTO, name_ + ": answers another command than " + command));
    return object;
  }
}

Result<json> Client::execute(const std::string& command, json arguments) {
  if (broken_)
    return fail(
        Error::protocol(EPROTO, name_ + ": an earlier command had no valid answer: " + command));
  const uint64_t id = ++last_id_;
  const json request = {{"execute", command}, {"arguments", std::move(arguments)}, {"id", id}};
  broken_ = true;
  RETURN_IF_ERROR(send(request.dump(-1, ' ', true, json::error_handler_t::replace) + "\n",
                       Clock::now() + limits_.answer));
  ASSIGN_OR_RETURN(json answer, answer_to(command, id));
  broken_ = false;
  if (const auto error = answer.find("error"); error != answer.end()) {
    std::string why = text_member(*error, "desc");
    if (why.size() > kLongestMessage) why.resize(kLongestMessage);
    return fail(Error::protocol(EIO, fmt::format("{}: {}: {}", name_, command, printable(why))));
  }
  const auto value = answer.find("return");
  if (value == answer.end()) {
    broken_ = true;
    return fail(Error::protocol(EPROTO, name_ + ": has no answer to " + command));
  }
  return std::move(*value);
}

}  // namespace vc::qmp
