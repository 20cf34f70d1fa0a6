#include "tests/support/http_server.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "tests/support/raw_file.h"

namespace vc::support {

namespace {

bool send_all(int fd, const void* data, size_t length) {
  const auto* at = static_cast<const char*>(data);
  while (length > 0) {
    const ssize_t sent = ::send(fd, at, length, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += sent;
    length -= static_cast<size_t>(sent);
  }
  return true;
}

}  // namespace

HttpServer::HttpServer(const std::string& file)
    : bytes_(read_file(file)), socket_(folder_ / "socket") {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_.size() >= sizeof address.sun_path)
    throw std::runtime_error(socket_ + ": too long for a socket");
  std::memcpy(address.sun_path, socket_.c_str(), socket_.size() + 1);
  listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener_ < 0 ||
      ::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_, 64) != 0)
    throw std::runtime_error(socket_ + ": cannot listen");
  acceptor_ = std::thread([this] { accept_all(); });
}

HttpServer::~HttpServer() {
  ::shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  ::close(listener_);
  for (const int fd : connections_) ::shutdown(fd, SHUT_RDWR);
  for (std::thread& it : threads_) it.join();
  for (const int fd : connections_) ::close(fd);
}

void HttpServer::accept_all() {
  for (int fd = 0; (fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
    const std::lock_guard lock(mutex_);
    connections_.push_back(fd);
    threads_.emplace_back([this, fd] { serve(fd); });
  }
}

void HttpServer::serve(int fd) {
  std::string input;
  for (;;) {
    const size_t end = input.find("\r\n\r\n");
    if (end != std::string::npos) {
      if (!answer(fd, input.substr(0, end + 2))) break;
      input.erase(0, end + 4);
      continue;
    }
    char buffer[4096];
    const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0) break;
    input.append(buffer, static_cast<size_t>(got));
  }
  ::shutdown(fd, SHUT_RDWR);
}

bool HttpServer::answer(int fd, const std::string& request) {
  const bool head = request.starts_with("HEAD ");
  const size_t range = request.find("\r\nRange: bytes=");
  unsigned long long first = 0;
  unsigned long long last = 0;
  std::string header;
  if (range == std::string::npos) {
    header = fmt::format("HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\n\r\n",
                         bytes_.size());
    if (!send_all(fd, header.data(), header.size())) return false;
    return head || send_all(fd, bytes_.data(), bytes_.size());
  }
  ++ranges_;
  if (std::sscanf(request.c_str() + range, "\r\nRange: bytes=%llu-%llu", &first, &last) != 2 ||
      first > last || first >= bytes_.size()) {
    header = "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n";
    return send_all(fd, header.data(), header.size());
  }
  // A range past the end is no error (RFC 9110, 14.1.2).
  last = std::min<unsigned long long>(last, bytes_.size() - 1);
  header = fmt::format(
      "HTTP/1.1 206 Partial Content\r\nAccept-Ranges: bytes\r\n"
      "Content-Range: bytes {}-{}/{}\r\nContent-Length: {}\r\n\r\n",
      first, last, bytes_.size(), last - first + 1);
  return send_all(fd, header.data(), header.size()) &&
         (head || send_all(fd, bytes_.data() + first, last - first + 1));
}

}  // namespace vc::support
