// A web server that has one file, and gives any part of it.
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

// HTTP/1.1 with ranges, of which Python's http.server knows nothing, on a Unix socket in a folder
// of its own.  Each path leads to the file.
class HttpServer {
 public:
  explicit HttpServer(const std::string& file);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer();

  const std::string& socket() const { return socket_; }
  // Parts of the file that were asked for.
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
