#include "tests/interop/nbd_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>

namespace vc::interop {

namespace {

[[noreturn]] void fail() {
  throw std::runtime_error(nbd_get_error());
}

void must(int result) {
  if (result == -1) fail();
}

// The extents of one request.
struct Gathered {
  std::vector<NbdClient::Status> extents;
  uint64_t at;  // start of the next one
};

int gather(void* data, const char* context, uint64_t /*offset*/, uint32_t* entries, size_t count,
           int* /*error*/) {
  if (std::string_view(context) != LIBNBD_CONTEXT_BASE_ALLOCATION) return 0;
  auto& gathered = *static_cast<Gathered*>(data);
  for (size_t i = 0; i + 1 < count; i += 2) {
    const uint32_t flags = entries[i + 1];
    gathered.extents.push_back({gathered.at, entries[i], (flags & LIBNBD_STATE_HOLE) != 0,
                                (flags & LIBNBD_STATE_ZERO) != 0});
    gathered.at += entries[i];
  }
  return 0;
}

int gather_name(void* data, const char* name, const char* /*description*/) {
  static_cast<std::vector<std::string>*>(data)->emplace_back(name);
  return 0;
}

}  // namespace

NbdClient::NbdClient(const std::string& socket, const std::string& export_name)
    : handle_(nbd_create()) {
  if (!handle_) fail();
  must(nbd_add_meta_context(handle_.get(), LIBNBD_CONTEXT_BASE_ALLOCATION));
  must(nbd_set_export_name(handle_.get(), export_name.c_str()));
  must(nbd_connect_unix(handle_.get(), socket.c_str()));
}

uint64_t NbdClient::size() const {
  const int64_t size = nbd_get_size(handle_.get());
  if (size < 0) fail();
  return static_cast<uint64_t>(size);
}

bool NbdClient::read_only() const {
  return nbd_is_read_only(handle_.get()) == 1;
}

bool NbdClient::can_multi_conn() const {
  return nbd_can_multi_conn(handle_.get()) == 1;
}

std::vector<std::byte> NbdClient::read(uint64_t at, size_t length) const {
  std::vector<std::byte> bytes(length);
  must(nbd_pread(handle_.get(), bytes.data(), length, at, 0));
  return bytes;
}

void NbdClient::cache(uint64_t at, uint64_t length) const {
  must(nbd_cache(handle_.get(), length, at, 0));
}

std::vector<NbdClient::Status> NbdClient::block_status(uint64_t at, uint64_t length,
                                                       bool one) const {
  // Lengths of requests have 32 bits.
  constexpr uint64_t kLongest = uint64_t{1} << 31;
  std::vector<Status> all;
  const uint64_t end = at + length;
  while (at < end) {
    Gathered gathered{{}, at};
    const uint64_t request = std::min(end - at, kLongest);
    const nbd_extent_callback callback{gather, &gathered, nullptr};
    must(nbd_block_status(handle_.get(), request, at, callback, one ? LIBNBD_CMD_FLAG_REQ_ONE : 0));
    if (gathered.extents.empty() || gathered.at <= at)
      throw std::runtime_error(fmt::format("no block status at {}", at));
    if (gathered.at > at + request || (one && gathered.extents.size() != 1))
      throw std::runtime_error(fmt::format("block status of [{}, +{}): {} extents up to {}", at,
                                           request, gathered.extents.size(), gathered.at));
    all.insert(all.end(), gathered.extents.begin(), gathered.extents.end());
    at = gathered.at;
  }
  return all;
}

std::vector<std::string> NbdClient::list(const std::string& socket) {
  const std::unique_ptr<nbd_handle, Close> handle(nbd_create());
  if (!handle) fail();
  must(nbd_set_opt_mode(handle.get(), true));
  must(nbd_connect_unix(handle.get(), socket.c_str()));
  std::vector<std::string> names;
  must(nbd_opt_list(handle.get(), {gather_name, &names, nullptr}));
  must(nbd_opt_abort(handle.get()));
  return names;
}

}  // namespace vc::interop
