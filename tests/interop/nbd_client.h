// An NBD client for tests.
#pragma once

#include <libnbd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace vc::interop {

// Throws std::runtime_error with libnbd's message if the server returns an error.
class NbdClient {
 public:
  NbdClient(const std::string& socket, const std::string& export_name);

  // Returns the size, bytes.
  uint64_t size() const;
  bool read_only() const;
  bool can_multi_conn() const;
  std::vector<std::byte> read(uint64_t at, size_t length) const;
  void cache(uint64_t at, uint64_t length) const;

  struct Status {
    uint64_t at = 0;      // bytes
    uint64_t length = 0;  // bytes
    bool hole = false;
    bool zero = false;
  };
  // Returns the extents of [at, at + length), with as many requests as necessary. Also throws if an
  // answer is empty or too long. With `one`, each request asks for a single extent.
  std::vector<Status> block_status(uint64_t at, uint64_t length, bool one = false) const;

  // Returns the exports that the server lists.
  static std::vector<std::string> list(const std::string& socket);

 private:
  struct Close {
    void operator()(nbd_handle* handle) const { nbd_close(handle); }
  };
  std::unique_ptr<nbd_handle, Close> handle_;
};

}  // namespace vc::interop
