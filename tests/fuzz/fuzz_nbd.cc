// libFuzzer target: takes any bytes as the output of an NBD server. If the first byte is even, the
// bytes are the whole output. If it is odd, the handshake is valid, and the bytes determine the
// answers to requests.
//
//     meson setup build-fuzz -Dfuzzers=true   (with CXX=clang++-19)
//     build-fuzz/tests/fuzz/fuzz_nbd -rss_limit_mb=512 CORPUS
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/progress.h"
#include "copy/pipeline/pipeline.h"
#include "copy/sink/null_sink.h"
#include "copy/source/nbd_source.h"

using namespace vc;

namespace {

// Size of the disk in the negotiation of an odd first byte.
constexpr uint64_t kSize = 1 << 20;
// A larger disk is not read.
constexpr uint64_t kMostSize = 64 << 20;
constexpr std::byte kData{0xab};

class Silent final : public Progress {
 public:
  void update(uint64_t /*done*/, uint64_t /*total*/) override {}
};

// A sink that checks that all data arrives.
class Checking final : public copy::Sink {
 public:
  explicit Checking(bool only_data) : only_data_(only_data) {}
  const qcow2::Geometry& geometry() const override { return geometry_; }
  Result<void> place(copy::Chunk& /*chunk*/) override { return {}; }
  Result<void> write(const copy::Chunk& chunk) override {
    const uint64_t size = geometry_.cluster_size();
    for (size_t i = 0; only_data_ && i < chunk.clusters.size(); ++i)
      if (chunk.clusters[i].kind == copy::Chunk::Cluster::Kind::kData)
        for (const std::byte it : chunk.bytes.span().subspan(i * size, size))
          if (it != kData && it != std::byte{0}) __builtin_trap();
    return {};
  }
  Result<void> finish() override { return {}; }

 private:
  const qcow2::Geometry geometry_{16, false};
  const bool only_data_;
};

class Server {
 public:
  Server() : listening_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    std::string folder = "/tmp/fuzz-nbd-XXXXXX";
    if (!::mkdtemp(folder.data())) std::abort();
    path_ = folder + "/socket";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
    if (::bind(listening_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listening_, 8) != 0)
      std::abort();
    std::thread([this] { serve(); }).detach();
  }

  std::string uri() const { return "nbd+unix:///?socket=" + path_; }
  // Sets the bytes for the next connections.
  void set(const uint8_t* data, size_t size) {
    const std::lock_guard lock(mutex_);
    next_.assign(data, data + size);
  }

 private:
  // Serves one client after the other: the disk does not permit several connections.
  void serve() {
    while (true) {
      fd_ = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd_ < 0) continue;
      {
        const std::lock_guard lock(mutex_);
        bytes_ = next_;
        at_ = 0;
      }
      talk();
      ::shutdown(fd_, SHUT_WR);
      std::array<char, 4096> rest{};
      while (::recv(fd_, rest.data(), rest.size(), 0) > 0) {
      }
      ::close(fd_);
    }
  }

  void talk() {
    if (bytes_.empty() || bytes_[0] % 2 == 0) {
      if (bytes_.size() > 1) send({bytes_.begin() + 1, bytes_.end()});
      return;
    }
    at_ = 1;
    greet();
    std::vector<uint8_t> request;
    while (at_ < bytes_.size() && receive(request, 28)) answer(request);
  }

  void send(const std::vector<uint8_t>& what) {
    for (size_t done = 0; done < what.size();) {
      const ssize_t sent = ::send(fd_, what.data() + done, what.size() - done, MSG_NOSIGNAL);
      if (sent <= 0) return;
      done += static_cast<size_t>(sent);
    }
  }
  bool receive(std::vector<uint8_t>& to, size_t length) {
    to.resize(length);
    for (size_t done = 0; done < length;) {
      const ssize_t got = ::recv(fd_, to.data() + done, length - done, 0);
      if (got <= 0) return false;
      done += static_cast<size_t>(got);
    }
    return true;
  }

  static void add(std::vector<uint8_t>& to, uint64_t value, unsigned size) {
    for (unsigned i = size; i-- > 0;) to.push_back(static_cast<uint8_t>(value >> (8 * i)));
  }
  static uint64_t number(const std::vector<uint8_t>& from, size_t at, unsigned size) {
    uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value = value << 8 | from[at + i];
    return value;
  }

  void reply_option(uint32_t option, uint32_t type, const std::vector<uint8_t>& payload = {}) {
    std::vector<uint8_t> reply;
    add(reply, 0x3e889045565a9, 8);
    add(reply, option, 4);
    add(reply, type, 4);
    add(reply, payload.size(), 4);
    reply.insert(reply.end(), payload.begin(), payload.end());
    send(reply);
  }

  // Negotiates structured replies and block status.
  void greet() {
    std::vector<uint8_t> some;
    add(some, 0x4e42444d41474943, 8);
    add(some, 0x49484156454F5054, 8);
    add(some, 3, 2);
    send(some);
    if (!receive(some, 4)) return;
    while (receive(some, 16)) {
      const auto option = static_cast<uint32_t>(number(some, 8, 4));
      if (const size_t length = number(some, 12, 4); !receive(some, length)) return;
      std::vector<uint8_t> payload;
      if (option == 7) {
        add(payload, 0, 2);
        add(payload, kSize, 8);
        add(payload, 1, 2);
        reply_option(option, 3, payload);
        return reply_option(option, 1);
      }
      if (option == 10) {
        add(payload, 1, 4);
        for (const char c : std::string("base:allocation"))
          payload.push_back(static_cast<uint8_t>(c));
        reply_option(option, 4, payload);
      }
      reply_option(option, option == 8 || option == 10 ? 1 : 0x80000001);
    }
  }

  uint64_t take(unsigned size) {
    uint64_t value = 0;
    for (unsigned i = 0; i < size && at_ < bytes_.size(); ++i) value = value << 8 | bytes_[at_++];
    return value;
  }

  // Most cookies are right. The bytes determine everything else.
  void answer(const std::vector<uint8_t>& request) {
    const uint64_t offset = number(request, 16, 8);
    const uint64_t length = number(request, 24, 4);
    for (bool done = false; !done && at_ < bytes_.size();) {
      const uint64_t how = take(1);
      done = (how & 1) != 0;
      const uint64_t cookie = number(request, 8, 8) ^ ((how & 0xf0) == 0xf0 ? take(1) : 0);
      std::vector<uint8_t> reply;
      std::vector<uint8_t> payload;
      uint64_t type = (how >> 1) & 7;
      if (type == 7) {
        add(reply, 0x67446698, 4);
        add(reply, take(1) & 5, 4);
        add(reply, cookie, 8);
        reply.insert(reply.end(), length, 0xab);
        send(reply);
        continue;
      }
      const bool whole = (how & 16) != 0;
      const uint64_t begin = whole ? 0 : take(3);
      const uint64_t part = whole ? length : take(3);
      switch (type) {
        case 1:
          add(payload, offset + begin, 8);
          payload.insert(payload.end(), std::min<uint64_t>(part, kSize), 0xab);
          break;
        case 2:
          add(payload, offset + begin, 8);
          add(payload, part, 4);
          break;
        case 3:
        case 5:
          type = 5;
          add(payload, whole ? 1 : take(1), 4);
          for (uint64_t i = take(1) % 16 + 1; i > 0; --i) {
            add(payload, take(3), 4);
            add(payload, take(1), 4);
          }
          break;
        case 4:
          type = 0x8001 + take(1) % 2;
          add(payload, take(1), 4);
          add(payload, 0, 2);
          if (type == 0x8002) add(payload, offset + begin, 8);
          break;
        case 6:
          type = take(2);
          add(payload, take(4), 4);
          break;
        default:
          break;
      }
      add(reply, 0x668e33ef, 4);
      add(reply, done ? 1 : 0, 2);
      add(reply, type, 2);
      add(reply, cookie, 8);
      add(reply, payload.size(), 4);
      reply.insert(reply.end(), payload.begin(), payload.end());
      send(reply);
    }
  }

  const int listening_;
  int fd_ = -1;
  std::string path_;
  std::vector<uint8_t> bytes_;  // of this connection
  size_t at_ = 0;               // index of the next byte to use
  std::mutex mutex_;
  std::vector<uint8_t> next_;  // guarded by mutex_
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static auto* const server = new Server;
  if (size < 2 || size > (1 << 16)) return 0;
  server->set(data, size);
  const Cancel cancel;
  Stop stop(cancel);
  copy::NbdSource::Options options;
  options.tuning = {.connections = 2,
                    .requests = 4,
                    .request_size = 64 << 10,
                    .retries = 0,
                    .timeout = std::chrono::seconds(1)};
  auto source = copy::NbdSource::open(server->uri(), options, stop);
  if (!source || (*source)->size() > kMostSize) return 0;
  Checking sink(data[0] % 2 == 1);
  Silent progress;
  copy::Pipeline::Options how;
  how.worker.geometry = sink.geometry();
  how.chunk_size = 256 << 10;
  how.chunks = 4;
  copy::Pipeline pipeline(**source, sink, progress, stop, how);
  // The result does not matter, as long as errors are returned.
  static_cast<void>(pipeline.run().has_value());
  return 0;
}
