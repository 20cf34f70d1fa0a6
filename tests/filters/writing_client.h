// An NBD client that writes, for tests.
#pragma once

#include <libnbd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace vc::test {

// Every request throws std::runtime_error with libnbd's message if the server returns an error. Not
// thread-safe.
class WritingClient {
 public:
  explicit WritingClient(const std::string& socket, const std::string& export_name = "");
  // Disconnects properly.  The server may still handle the end of the connection for some time.
  ~WritingClient();
  WritingClient(const WritingClient&) = delete;
  WritingClient& operator=(const WritingClient&) = delete;

  // Flags are those of libnbd, LIBNBD_CMD_FLAG_….
  void write(uint64_t offset, std::span<const std::byte> bytes, uint32_t flags = 0);
  void zero(uint64_t offset, uint64_t length, uint32_t flags = 0);
  void trim(uint64_t offset, uint64_t length, uint32_t flags = 0);
  void flush();
  std::vector<std::byte> read(uint64_t offset, size_t length);

 private:
  struct Close {
    void operator()(nbd_handle* handle) const { nbd_close(handle); }
  };
  std::unique_ptr<nbd_handle, Close> handle_;
};

}  // namespace vc::test
