// A web server for one file, with support for ranges.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/temp_directory.h"

namespace vc::support {

// HTTP/1.1 with ranges, which Python's http.server does not support, on a Unix socket in a
// temporary folder. Every path leads to the file.
class HttpServer {
 public:
  explicit HttpServer(const std::string& file);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer();

  const std::string& socket() const { return socket_; }
  // Returns the number of requested ranges.
  uint64_t ranges() const { return ranges_; }

 private:
  void accept_all();
  void serve(int fd);
  bool answer(int fd, const std::string& request);

  const std::vector<std::byte> bytes_;
  TempDirectory folder_;
  std::string socket_;
  int listener_ = -1;
  std::atomic<uint64_t> ranges_ = 0;
  std::mutex mutex_;
  std::vector<int> connections_;      // guarded by mutex_; open until the end
  std::vector<std::thread> threads_;  // guarded by mutex_
  std::thread acceptor_;
};

}  // namespace vc::support
