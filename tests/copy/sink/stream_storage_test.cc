#include "copy/sink/stream_storage.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <thread>
#include <utility>
#include <vector>

#include "base/cancel.h"
#include "base/stop.h"
#include "tests/catch_text.h"
#include "tests/support/random.h"

using namespace vc;

using copy::DryStorage;
using copy::StreamStorage;

namespace {

using Bytes = std::vector<std::byte>;

// A pipe that a thread reads to its end.
class Reader {
 public:
  Reader() {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    write_end_ = ends[1];
    thread_ = std::thread([this, fd = ends[0]] {
      std::array<std::byte, 4096> buffer{};
      for (ssize_t got; (got = ::read(fd, buffer.data(), buffer.size())) > 0;)
        bytes_.insert(bytes_.end(), buffer.begin(), buffer.begin() + got);
      ::close(fd);
    });
  }
  ~Reader() { finish(); }

  int fd() const { return write_end_; }
  const Bytes& finish() {
    if (write_end_ >= 0) ::close(std::exchange(write_end_, -1));
    if (thread_.joinable()) thread_.join();
    return bytes_;
  }

 private:
  int write_end_ = -1;
  Bytes bytes_;
  std::thread thread_;
};

Bytes filled(size_t length, unsigned value) {
  return Bytes(length, static_cast<std::byte>(value));
}

}  // namespace

TEST_CASE("a stream is in order for any order of writes", "[stream_storage]") {
  const Cancel cancel;
  const Stop stop(cancel);
  support::Random random(support::base_seed());
  Bytes expected(300000);
  random.fill(expected);
  const Bytes start(expected.begin(), expected.begin() + 1000);
  Reader reader;
  {
    StreamStorage stream(reader.fd(), "pipe", start, stop);
    // Shuffled pieces after the start. Some of them are zeros.
    struct Piece {
      uint64_t at;
      uint64_t length;
    };
    std::vector<Piece> pieces;
    for (uint64_t at = start.size(); at < expected.size();) {
      const uint64_t length = std::min<uint64_t>(random.between(1, 9000), expected.size() - at);
      pieces.push_back({at, length});
      at += length;
    }
    for (size_t i = pieces.size() - 1; i > 0; --i)
      std::swap(pieces[i], pieces[random.below(i + 1)]);
    for (const Piece& piece : pieces) {
      const auto part = std::span(expected).subspan(piece.at, piece.length);
      if (random.chance(20)) {
        std::fill(part.begin(), part.end(), std::byte{0});
        REQUIRE_OK(stream.write_zeroes(HostOffset(piece.at), piece.length));
      } else {
        REQUIRE_OK(stream.write(HostOffset(piece.at), part));
      }
    }
    REQUIRE_OK(stream.write(HostOffset(0), start));
    REQUIRE_OK(stream.resize(expected.size()));
  }
  CHECK(reader.finish() == expected);
}

TEST_CASE("a stream with a wrong beginning or a gap is an error", "[stream_storage]") {
  const Cancel cancel;
  const Stop stop(cancel);
  Reader reader;
  StreamStorage stream(reader.fd(), "pipe", filled(512, 1), stop);
  REQUIRE_OK(stream.write(HostOffset(1024), filled(512, 3)));
  REQUIRE_FAILS_WITH(stream.resize(1536), "it has no data for 0x200");
  REQUIRE_FAILS_WITH(stream.write(HostOffset(0), filled(512, 2)), "the source has changed");
}

TEST_CASE("a copy whose reader is stalled can be stopped", "[stream_storage]") {
  Cancel cancel;
  const Stop stop(cancel);
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  StreamStorage stream(ends[1], "pipe", {}, stop);
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    cancel.request();
  });
  // Writes more than fits into a pipe, without a reader.
  const auto written = stream.write(HostOffset(0), filled(4 << 20, 1));
  later.join();
  REQUIRE_FALSE(written.has_value());
  CHECK(written.error().kind() == Error::Kind::kCancelled);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("a dry run keeps the beginning of the image", "[stream_storage]") {
  DryStorage dry(1000);
  REQUIRE_OK(dry.write(HostOffset(5000), filled(100, 7)));
  REQUIRE_OK(dry.write(HostOffset(0), filled(600, 5)));
  REQUIRE_OK(dry.write(HostOffset(900), filled(600, 6)));
  REQUIRE_OK(dry.resize(9000));
  Bytes expected = filled(1000, 0);
  std::fill_n(expected.begin(), 600, std::byte{5});
  std::fill_n(expected.begin() + 900, 100, std::byte{6});
  CHECK(dry.start() == expected);
  CHECK(*dry.size() == 9000);
}
