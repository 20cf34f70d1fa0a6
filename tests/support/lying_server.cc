#include "tests/support/lying_server.h"

#include <endian.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <set>
#include <stdexcept>

namespace vc::support {

namespace {

// Numbers of the NBD protocol (proto.md).
constexpr uint64_t kGreeting = 0x4e42444d41474943;
constexpr uint64_t kHaveOptions = 0x49484156454F5054;
constexpr uint64_t kOptionReply = 0x3e889045565a9;
constexpr uint32_t kRequest = 0x25609513;
constexpr uint32_t kSimple = 0x67446698;
constexpr uint32_t kChunk = 0x668e33ef;
enum Option : uint32_t { kOptGo = 7, kOptStructured = 8, kOptSetContext = 10 };
enum OptionReply : uint32_t { kAck = 1, kInfo = 3, kContext = 4, kUnsupported = 0x80000001 };
enum Command : uint16_t { kRead = 0, kWrite, kDisconnect, kFlush, kTrim, kZero = 6, kStatus };
enum ChunkType : uint16_t { kEmpty = 0, kData = 1, kHole = 2, kBlocks = 5, kError = 0x8001 };
// Has flags; supports flush, FUA, trim, zeros and several connections.
constexpr uint16_t kFlags = 1 | 4 | 8 | 32 | 64;
constexpr uint16_t kMultiConn = 256;
constexpr uint32_t kContextId = 7;

struct Gone {};

// Bytes in network order.
class Packet {
 public:
  Packet& u16(uint64_t value) { return number(value, 2); }
  Packet& u32(uint64_t value) { return number(value, 4); }
  Packet& u64(uint64_t value) { return number(value, 8); }
  Packet& text(const std::string& value) {
    bytes_.insert(bytes_.end(), reinterpret_cast<const std::byte*>(value.data()),
                  reinterpret_cast<const std::byte*>(value.data()) + value.size());
    return *this;
  }
  Packet& data(const std::vector<std::byte>& value) {
    bytes_.insert(bytes_.end(), value.begin(), value.end());
    return *this;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  Packet& number(uint64_t value, unsigned size) {
    for (unsigned i = size; i-- > 0;) bytes_.push_back(std::byte(value >> (8 * i)));
    return *this;
  }
  std::vector<std::byte> bytes_;
};

bool is_about_reads(Lie lie) {
  return (lie >= Lie::kLeaveInPayload && lie <= Lie::kDataThenError) || lie == Lie::kStatusForRead;
}

bool is_about_status(Lie lie) {
  return lie >= Lie::kStatusEmpty && lie < Lie::kStatusForRead;
}

}  // namespace

std::vector<Lie> all_lies() {
  std::vector<Lie> lies;
  for (int i = 1; i <= static_cast<int>(Lie::kSilentAtTrim); ++i)
    lies.push_back(static_cast<Lie>(i));
  return lies;
}

// libnbd ignores invalid block sizes, and not every client requests contexts.
bool spoils_reads(Lie lie) {
  static const std::set<Lie> kHarmless{Lie::kMinimumTooLarge, Lie::kMaximumTooSmall,
                                       Lie::kEndlessOptions, Lie::kSimpleReply};
  return (lie <= Lie::kDataThenError || lie == Lie::kStatusForRead) && !kHarmless.contains(lie);
}

const char* to_string(Lie lie) {
  constexpr std::array kNames{"none",
                              "leave at once",
                              "silent at once",
                              "garbage greeting",
                              "leave in opts",
                              "silent in opts",
                              "wrong opt magic",
                              "endless options",
                              "leave at go",
                              "silent at go",
                              "size too large",
                              "minimum too large",
                              "max too small",
                              "leave at command",
                              "silent at command",
                              "leave in header",
                              "silent in header",
                              "trickle",
                              "wrong cookie",
                              "wrong magic",
                              "unknown chunk",
                              "error chunk",
                              "error of huge length",
                              "huge length",
                              "endless chunks",
                              "leave in payload",
                              "silent in payload",
                              "simple reply",
                              "empty reply",
                              "first half",
                              "last half",
                              "overlapping",
                              "too long",
                              "before",
                              "wraps",
                              "every other byte",
                              "zero length",
                              "data then error",
                              "status empty",
                              "status zero length",
                              "status too many",
                              "status too long",
                              "status other context",
                              "status twice",
                              "status then error",
                              "status odd length",
                              "status for read",
                              "silent at trim"};
  static_assert(kNames.size() == static_cast<size_t>(Lie::kSilentAtTrim) + 1);
  return kNames.at(static_cast<size_t>(lie));
}

namespace {

// A request of the client.
struct Asked {
  uint16_t flags, type;
  uint64_t cookie, at;
  uint32_t length;
};

template <typename T>
uint64_t number(const std::vector<std::byte>& bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = value << 8 | uint64_t(bytes.at(at + i));
  return value;
}

Packet chunk(const Asked& asked, uint16_t type, const Packet& payload, bool done = true,
             uint32_t longer = 0) {
  return Packet()
      .u32(kChunk)
      .u16(done ? 1 : 0)
      .u16(type)
      .u64(asked.cookie)
      .u32(payload.bytes().size() + longer)
      .data(payload.bytes());
}

Packet hole(const Asked& asked, uint64_t at, uint32_t length, bool done = true) {
  return chunk(asked, kHole, Packet().u64(at).u32(length), done);
}

Packet error(const Asked& asked) {
  return chunk(asked, kError, Packet().u32(5).u16(0));
}

}  // namespace

// One connection, with a thread of its own.
class LyingServer::Client {
 public:
  Client(LyingServer& server, int fd) : server_(server), fd_(fd) {}

  void run() {
    try {
      if (greet()) serve();
    } catch (const Gone&) {
      return;
    }
  }

 private:
  Lie lie() const { return server_.options_.lie; }

  void pause(int milliseconds) const {
    for (int waited = 0; waited < milliseconds && !server_.stop_; waited += 10)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (server_.stop_) throw Gone();
  }

  // Sends nothing more until the server or the client ends.
  [[noreturn]] void fall_silent() {
    std::array<std::byte, 65536> some{};
    while (!server_.stop_) {
      pollfd waiting{fd_, POLLIN, 0};
      if (::poll(&waiting, 1, 10) > 0 && ::recv(fd_, some.data(), some.size(), 0) <= 0) break;
    }
    throw Gone();
  }

  void send(const std::vector<std::byte>& bytes) {
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t sent = ::send(fd_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (sent <= 0) throw Gone();
      done += static_cast<size_t>(sent);
    }
  }
  void send(const Packet& packet) { send(packet.bytes()); }

  std::vector<std::byte> receive(size_t length) {
    std::vector<std::byte> bytes(length);
    for (size_t done = 0; done < length;) {
      const ssize_t got = ::recv(fd_, bytes.data() + done, length - done, 0);
      if (got <= 0) throw Gone();
      done += static_cast<size_t>(got);
    }
    return bytes;
  }

  void reply_option(uint64_t option, uint32_t type, const Packet& payload = {}) {
    send(Packet()
             .u64(lie() == Lie::kWrongOptionMagic ? 1 : kOptionReply)
             .u32(option)
             .u32(type)
             .u32(payload.bytes().size())
             .data(payload.bytes()));
  }

  // Returns true if commands follow.
  bool greet() {
    if (lie() == Lie::kLeaveAtOnce) return false;
    if (lie() == Lie::kSilentAtOnce) fall_silent();
    send(Packet().u64(lie() == Lie::kGarbageGreeting ? 1 : kGreeting).u64(kHaveOptions).u16(3));
    receive(4);
    while (true) {
      const auto head = receive(16);
      const uint64_t option = number<uint32_t>(head, 8);
      receive(number<uint32_t>(head, 12));
      if (lie() == Lie::kLeaveInOptions) return false;
      if (lie() == Lie::kSilentInOptions) fall_silent();
      if (option == kOptStructured && server_.options_.structured) {
        reply_option(option, kAck);
      } else if (option == kOptSetContext) {
        const auto context = Packet().u32(kContextId).text("base:allocation");
        reply_option(option, kContext, context);
        while (lie() == Lie::kEndlessOptions) reply_option(option, kContext, context);
        reply_option(option, kAck);
      } else if (option == kOptGo) {
        return go();
      } else {
        reply_option(option, kUnsupported);
      }
    }
  }

  bool go() {
    if (lie() == Lie::kLeaveAtGo) return false;
    if (lie() == Lie::kSilentAtGo) fall_silent();
    const uint64_t size = lie() == Lie::kSizeTooLarge ? uint64_t{1} << 63 : server_.disk().size();
    const uint16_t flags = kFlags | (server_.options_.multi_conn ? kMultiConn : 0);
    reply_option(kOptGo, kInfo, Packet().u16(0).u64(size).u16(flags));
    reply_option(kOptGo, kInfo,
                 Packet()
                     .u16(3)
                     .u32(lie() == Lie::kMinimumTooLarge ? 3000 : 1)
                     .u32(4096)
                     .u32(lie() == Lie::kMaximumTooSmall ? 16 : 32 << 20));
    reply_option(kOptGo, kAck);
    return true;
  }

  void serve() {
    while (true) {
      const auto head = receive(28);
      if (number<uint32_t>(head, 0) != kRequest) return;
      const Asked asked{static_cast<uint16_t>(number<uint16_t>(head, 4)),
                        static_cast<uint16_t>(number<uint16_t>(head, 6)), number<uint64_t>(head, 8),
                        number<uint64_t>(head, 16),
                        static_cast<uint32_t>(number<uint32_t>(head, 24))};
      std::vector<std::byte> payload;
      if (asked.type == kWrite) payload = receive(asked.length);
      if (asked.type == kDisconnect) return;
      const bool about = is_about_reads(lie())         ? asked.type == kRead
                         : is_about_status(lie())      ? asked.type == kStatus
                         : lie() == Lie::kSilentAtTrim ? asked.type == kTrim
                                                       : lie() >= Lie::kLeaveAtCommand;
      if (about && server_.commands_++ >= server_.options_.honest &&
          server_.lies_++ < server_.options_.most_lies) {
        answer_with_a_lie(asked, payload);
      } else {
        answer(asked, payload);
      }
    }
  }

  std::vector<std::byte> bytes(uint64_t at, uint64_t length) const {
    const std::lock_guard lock(server_.mutex_);
    const auto begin = server_.disk_.begin() + static_cast<std::ptrdiff_t>(at);
    return {begin, begin + static_cast<std::ptrdiff_t>(length)};
  }

  Packet data(const Asked& asked, uint64_t at, uint64_t length, bool done = true) const {
    return chunk(asked, kData, Packet().u64(at).data(bytes(at, length)), done);
  }

  // Reports data where there are nonzero bytes, and holes of whole 4096 bytes elsewhere.
  Packet status(uint64_t at, uint64_t length) const {
    Packet entries;
    entries.u32(kContextId);
    const auto all = bytes(at, length);
    const auto is_hole = [&](uint64_t offset) {
      return std::all_of(all.begin() + static_cast<std::ptrdiff_t>(offset),
                         all.begin() + static_cast<std::ptrdiff_t>(std::min(offset + 4096, length)),
                         [](std::byte it) { return it == std::byte{0}; });
    };
    for (uint64_t begin = 0; begin < length;) {
      const bool first = is_hole(begin);
      uint64_t end = begin;
      while (end < length && is_hole(end) == first) end = std::min(end + 4096, length);
      entries.u32(end - begin).u32(first ? 3 : 0);
      begin = end;
    }
    return entries;
  }

  void change(const Asked& asked, const std::vector<std::byte>& payload) {
    const std::lock_guard lock(server_.mutex_);
    const auto begin = server_.disk_.begin() + static_cast<std::ptrdiff_t>(asked.at);
    if (asked.type == kWrite) std::copy(payload.begin(), payload.end(), begin);
    if (asked.type == kZero) std::fill_n(begin, asked.length, std::byte{0});
  }

  void answer(const Asked& asked, const std::vector<std::byte>& payload) {
    if (asked.type == kRead && server_.options_.structured) {
      // Sends two chunks, the later one first.
      const uint64_t half = asked.length / 2;
      if (half > 0) send(data(asked, asked.at + half, asked.length - half, false));
      send(data(asked, asked.at, half > 0 ? half : asked.length));
      return;
    }
    if (asked.type == kStatus) {
      send(chunk(asked, kBlocks, status(asked.at, asked.length)));
      return;
    }
    change(asked, payload);
    Packet simple;
    simple.u32(kSimple).u32(0).u64(asked.cookie);
    if (asked.type == kRead) simple.data(bytes(asked.at, asked.length));
    send(simple);
  }

  // Returns the right answer without its last bytes.
  std::vector<std::byte> cut(const Asked& asked, size_t length) const {
    auto whole = asked.type == kRead ? data(asked, asked.at, asked.length).bytes()
                                     : chunk(asked, kEmpty, Packet()).bytes();
    whole.resize(std::min(length, whole.size()));
    return whole;
  }

  void answer_with_a_lie(const Asked& asked, const std::vector<std::byte>& payload) {
    Asked other = asked;
    const uint64_t half = asked.length / 2;
    switch (lie()) {
      case Lie::kLeaveAtCommand:
        throw Gone();
      case Lie::kSilentAtCommand:
      case Lie::kSilentAtTrim:
        fall_silent();
      case Lie::kLeaveInHeader:
        send(cut(asked, 9));
        throw Gone();
      case Lie::kSilentInHeader:
        send(cut(asked, 9));
        fall_silent();
      case Lie::kTrickle:
        for (const std::byte it : cut(asked, SIZE_MAX)) {
          send(std::vector{it});
          pause(20);
        }
        return;
      case Lie::kWrongCookie:
        other.cookie += 1000;
        return answer(other, payload);
      case Lie::kWrongMagic:
        return send(Packet().u32(1).u32(0).u64(asked.cookie));
      case Lie::kUnknownChunk:
        return send(chunk(asked, 99, Packet().u64(asked.at)));
      case Lie::kErrorChunk:
        return send(error(asked));
      case Lie::kErrorOfHugeLength:
        return send(chunk(asked, kError, Packet().u32(5).u16(0xffff)));
      case Lie::kHugeLength:
        return send(chunk(asked, kData, Packet().u64(asked.at), true, 0xfffffff0));
      case Lie::kEndlessChunks:
        while (!server_.stop_) send(chunk(asked, kError, Packet().u32(5).u16(0), false));
        throw Gone();
      case Lie::kLeaveInPayload:
        send(cut(asked, 28 + half));
        throw Gone();
      case Lie::kSilentInPayload:
        send(cut(asked, 28 + half));
        fall_silent();
      case Lie::kSimpleReply:
        return send(
            Packet().u32(kSimple).u32(0).u64(asked.cookie).data(bytes(asked.at, asked.length)));
      case Lie::kEmptyReply:
        return send(chunk(asked, kEmpty, Packet()));
      case Lie::kFirstHalf:
        return send(data(asked, asked.at, half));
      case Lie::kLastHalf:
        return send(hole(asked, asked.at + half, static_cast<uint32_t>(asked.length - half)));
      case Lie::kOverlapping:
        send(data(asked, asked.at, half, false));
        return send(data(asked, asked.at, asked.length - half));
      case Lie::kTooLong:
        return send(chunk(asked, kData,
                          Packet().u64(asked.at).data(
                              std::vector<std::byte>(asked.length + 1, std::byte{0x55}))));
      case Lie::kBefore:
        return send(chunk(asked, kData,
                          Packet().u64(asked.at - 1).data(std::vector<std::byte>(asked.length))));
      case Lie::kWraps:
        send(hole(asked, UINT64_MAX - 7, 16, false));
        return send(data(asked, asked.at, asked.length));
      case Lie::kEveryOtherByte:
        for (uint64_t i = 0; i < asked.length; i += 2) send(hole(asked, asked.at + i, 1, false));
        return send(chunk(asked, kEmpty, Packet()));
      case Lie::kZeroLength:
        return send(hole(asked, asked.at, 0));
      case Lie::kDataThenError:
        send(data(asked, asked.at, asked.length, false));
        return send(error(asked));
      case Lie::kStatusEmpty:
        return send(chunk(asked, kEmpty, Packet()));
      case Lie::kStatusZeroLength:
        return send(chunk(asked, kBlocks, Packet().u32(kContextId).u32(0).u32(3)));
      case Lie::kStatusTooMany: {
        Packet entries;
        entries.u32(kContextId);
        for (int i = 0; i < 1'000'000; ++i) entries.u32(1).u32(i % 2 == 0 ? 0 : 4);
        return send(chunk(asked, kBlocks, entries));
      }
      case Lie::kStatusTooLong:
        return send(chunk(asked, kBlocks, Packet().u32(kContextId).u32(UINT32_MAX).u32(0)));
      case Lie::kStatusOtherContext:
        return send(chunk(asked, kBlocks, Packet().u32(kContextId + 1).u32(asked.length).u32(3)));
      case Lie::kStatusTwice:
        send(chunk(asked, kBlocks, status(asked.at, asked.length), false));
        return send(chunk(asked, kBlocks, Packet().u32(kContextId).u32(asked.length).u32(3)));
      case Lie::kStatusThenError:
        send(chunk(asked, kBlocks, Packet().u32(kContextId).u32(asked.length).u32(3), false));
        return send(error(asked));
      case Lie::kStatusOddLength:
        return send(chunk(asked, kBlocks, Packet().u32(kContextId).u32(asked.length).u16(3)));
      case Lie::kStatusForRead:
        return send(chunk(asked, kBlocks, Packet().u32(kContextId).u32(asked.length).u32(3)));
      default:
        return answer(asked, payload);
    }
  }

  LyingServer& server_;
  const int fd_;
};

LyingServer::LyingServer(const Options& options, std::vector<std::byte> disk)
    : options_(options), disk_(std::move(disk)) {
  const std::string path = folder_ / "socket";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    throw std::runtime_error(path + ": too long for a socket");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  listening_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listening_ < 0 ||
      ::bind(listening_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listening_, 64) != 0)
    throw std::runtime_error(path + ": " + std::strerror(errno));
  acceptor_ = std::thread([this] { accept_all(); });
}

void LyingServer::accept_all() {
  while (!stop_) {
    pollfd waiting{listening_, POLLIN, 0};
    if (::poll(&waiting, 1, 20) <= 0) continue;
    const int fd = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    {
      const std::lock_guard lock(mutex_);
      sockets_.push_back(fd);
    }
    clients_.emplace_back([this, fd] {
      Client(*this, fd).run();
      ::shutdown(fd, SHUT_RDWR);
    });
  }
}

LyingServer::~LyingServer() {
  stop_ = true;
  acceptor_.join();
  for (const int fd : sockets_) ::shutdown(fd, SHUT_RDWR);
  for (std::thread& it : clients_) it.join();
  for (const int fd : sockets_) ::close(fd);
  ::close(listening_);
}

std::string LyingServer::uri() const {
  return "nbd+unix:///?socket=" + (folder_ / "socket");
}

std::vector<std::byte> LyingServer::disk() const {
  const std::lock_guard lock(mutex_);
  return disk_;
}

}  // namespace vc::support
