#include "tests/plugin/traffic.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

namespace vc::test {

namespace {

// libnbd's NBD_NULL_COMPLETION is valid C99, but not C++.
constexpr nbd_completion_callback kNoCompletion{nullptr, nullptr, nullptr};

constexpr int kPatience = 60000;  // milliseconds

void must(int64_t result) {
  if (result == -1) throw std::runtime_error(nbd_get_error());
}

bool has_range(const Request& request) {
  return request.kind != Request::Kind::kFlush;
}

}  // namespace

std::string Request::describe() const {
  static const char* const kNames[] = {"read", "write", "zero", "trim", "flush", "cache"};
  return fmt::format("{} {}+{} flags {:#x} on connection {}: errno {}",
                     kNames[static_cast<size_t>(kind)], at, length, flags, connection, error);
}

Traffic::Traffic(const std::string& socket, size_t connections, size_t depth,
                 const std::string& export_name)
    : depth_(depth) {
  for (size_t i = 0; i < connections; ++i) {
    handles_.emplace_back(nbd_create());
    nbd_handle* const handle = handles_.back().get();
    if (!handle) throw std::runtime_error(nbd_get_error());
    must(nbd_set_export_name(handle, export_name.c_str()));
    must(nbd_connect_unix(handle, socket.c_str()));
    const int64_t size = nbd_get_size(handle);
    must(size);
    size_ = static_cast<uint64_t>(size);
  }
}

Traffic::~Traffic() {
  // Until then, libnbd writes to the buffers of requests in flight.
  handles_.clear();
}

bool Traffic::busy(uint64_t at, uint64_t length) const {
  return std::any_of(in_flight_.begin(), in_flight_.end(), [&](const auto& it) {
    const Request& request = it->request;
    return has_range(request) && at < request.at + request.length && request.at < at + length;
  });
}

std::optional<uint64_t> Traffic::neighbour(support::Random& random) const {
  if (in_flight_.empty()) return std::nullopt;
  const Request& request = in_flight_[random.below(in_flight_.size())]->request;
  if (!has_range(request)) return std::nullopt;
  return random.chance(50) ? request.at + request.length
                           : request.at - std::min(request.at, random.between(1, 5000));
}

std::optional<size_t> Traffic::idle(support::Random& random) const {
  std::vector<size_t> load(handles_.size());
  for (const auto& it : in_flight_) ++load[it->request.connection];
  const size_t first = random.below(handles_.size());
  for (size_t i = 0; i < handles_.size(); ++i) {
    const size_t connection = (first + i) % handles_.size();
    if (load[connection] < depth_) return connection;
  }
  return std::nullopt;
}

void Traffic::submit(size_t connection, Request request) {
  auto flight = std::make_unique<InFlight>();
  flight->request = std::move(request);
  Request& it = flight->request;
  it.connection = connection;
  it.begun = ++events_;
  nbd_handle* const handle = handles_[connection].get();
  switch (it.kind) {
    case Request::Kind::kRead:
      it.bytes.resize(it.length);
      flight->cookie =
          nbd_aio_pread(handle, it.bytes.data(), it.length, it.at, kNoCompletion, it.flags);
      break;
    case Request::Kind::kWrite:
      flight->cookie =
          nbd_aio_pwrite(handle, it.bytes.data(), it.length, it.at, kNoCompletion, it.flags);
      break;
    case Request::Kind::kZero:
      flight->cookie = nbd_aio_zero(handle, it.length, it.at, kNoCompletion, it.flags);
      break;
    case Request::Kind::kTrim:
      flight->cookie = nbd_aio_trim(handle, it.length, it.at, kNoCompletion, it.flags);
      break;
    case Request::Kind::kFlush:
      flight->cookie = nbd_aio_flush(handle, kNoCompletion, it.flags);
      break;
    case Request::Kind::kCache:
      flight->cookie = nbd_aio_cache(handle, it.length, it.at, kNoCompletion, it.flags);
      break;
  }
  must(flight->cookie);
  in_flight_.push_back(std::move(flight));
}

void Traffic::collect(std::vector<Request>& done) {
  for (size_t i = 0; i < in_flight_.size();) {
    InFlight& flight = *in_flight_[i];
    nbd_handle* const handle = handles_[flight.request.connection].get();
    const int ended = nbd_aio_command_completed(handle, static_cast<uint64_t>(flight.cookie));
    if (ended == 0) {
      ++i;
      continue;
    }
    if (ended == -1) flight.request.error = nbd_get_errno() != 0 ? nbd_get_errno() : EIO;
    flight.request.ended = ++events_;
    done.push_back(std::move(flight.request));
    in_flight_.erase(in_flight_.begin() + static_cast<ptrdiff_t>(i));
  }
}

std::vector<Request> Traffic::wait() {
  std::vector<Request> done;
  collect(done);
  while (done.empty() && !in_flight_.empty()) {
    std::vector<pollfd> fds;
    fds.reserve(handles_.size());
    for (const auto& handle : handles_) {
      pollfd fd{nbd_aio_get_fd(handle.get()), 0, 0};
      const unsigned direction = nbd_aio_get_direction(handle.get());
      if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) fd.events |= POLLIN;
      if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) fd.events |= POLLOUT;
      fds.push_back(fd);
    }
    const int ready = ::poll(fds.data(), fds.size(), kPatience);
    if (ready == 0) throw std::runtime_error("no answer from the server for a minute");
    // A lost connection fails all of its requests. Their errors are collected here.
    for (size_t i = 0; i < fds.size(); ++i) {
      nbd_handle* const handle = handles_[i].get();
      const unsigned direction = nbd_aio_get_direction(handle);
      if ((fds[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0 &&
          (direction & LIBNBD_AIO_DIRECTION_READ) != 0)
        nbd_aio_notify_read(handle);
      else if ((fds[i].revents & POLLOUT) != 0 && (direction & LIBNBD_AIO_DIRECTION_WRITE) != 0)
        nbd_aio_notify_write(handle);
    }
    collect(done);
  }
  return done;
}

std::vector<Request> Traffic::pending() const {
  std::vector<Request> requests;
  for (const auto& it : in_flight_) requests.push_back(it->request);
  return requests;
}

void Traffic::disconnect() {
  for (const auto& handle : handles_) must(nbd_shutdown(handle.get(), 0));
}

std::optional<Request> draw_request(support::Random& random, const Traffic& traffic,
                                    Request::Kind kind, uint64_t cluster_size) {
  Request request;
  request.kind = kind;
  request.at = random.below(traffic.size());
  if (random.chance(60)) request.at = traffic.neighbour(random).value_or(request.at);
  if (random.chance(30)) request.at -= request.at % cluster_size;
  const uint64_t reach = random.chance(70) ? 3000 : 2 * cluster_size;
  request.length = random.between(1, std::min<uint64_t>(reach, 1 << 20));
  if (random.chance(25)) request.length = (request.length / cluster_size + 1) * cluster_size;
  if (request.at >= traffic.size()) return std::nullopt;
  request.length = std::min(request.length, traffic.size() - request.at);
  if (traffic.busy(request.at, request.length)) return std::nullopt;
  if (kind == Request::Kind::kWrite) {
    request.bytes.resize(request.length);
    const uint64_t what = random.below(10);
    if (what < 5) {
      random.fill(request.bytes);
    } else if (what < 8) {
      std::fill(request.bytes.begin(), request.bytes.end(),
                static_cast<std::byte>(random.between(1, 255)));
    } else if (what == 8) {
      // Zeros with some data at one end.
      random.fill(std::span(request.bytes).first(request.length / 4));
    }
  }
  if (kind == Request::Kind::kZero) {
    const uint32_t flavours[] = {0, LIBNBD_CMD_FLAG_NO_HOLE, LIBNBD_CMD_FLAG_FAST_ZERO,
                                 LIBNBD_CMD_FLAG_NO_HOLE | LIBNBD_CMD_FLAG_FAST_ZERO};
    request.flags = flavours[random.below(4)];
  }
  const bool changes =
      kind == Request::Kind::kWrite || kind == Request::Kind::kZero || kind == Request::Kind::kTrim;
  if (changes && random.chance(5)) request.flags |= LIBNBD_CMD_FLAG_FUA;
  return request;
}

}  // namespace vc::test
