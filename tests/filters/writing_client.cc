#include "tests/filters/writing_client.h"

#include <stdexcept>

namespace vc::test {

namespace {

void must(int result) {
  if (result == -1) throw std::runtime_error(nbd_get_error());
}

}  // namespace

WritingClient::WritingClient(const std::string& socket, const std::string& export_name)
    : handle_(nbd_create()) {
  if (!handle_) throw std::runtime_error(nbd_get_error());
  must(nbd_set_export_name(handle_.get(), export_name.c_str()));
  must(nbd_connect_unix(handle_.get(), socket.c_str()));
}

WritingClient::~WritingClient() {
  nbd_shutdown(handle_.get(), 0);
}

void WritingClient::write(uint64_t offset, std::span<const std::byte> bytes, uint32_t flags) {
  must(nbd_pwrite(handle_.get(), bytes.data(), bytes.size(), offset, flags));
}

void WritingClient::zero(uint64_t offset, uint64_t length, uint32_t flags) {
  must(nbd_zero(handle_.get(), length, offset, flags));
}

void WritingClient::trim(uint64_t offset, uint64_t length, uint32_t flags) {
  must(nbd_trim(handle_.get(), length, offset, flags));
}

void WritingClient::flush() {
  must(nbd_flush(handle_.get(), 0));
}

std::vector<std::byte> WritingClient::read(uint64_t offset, size_t length) {
  std::vector<std::byte> bytes(length);
  must(nbd_pread(handle_.get(), bytes.data(), length, offset, 0));
  return bytes;
}

}  // namespace vc::test
