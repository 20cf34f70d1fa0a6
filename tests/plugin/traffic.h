// Several connections to a server, with several requests in flight on each.
#pragma once

#include <libnbd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/random.h"

namespace vc::test {

struct Request {
  enum class Kind { kRead, kWrite, kZero, kTrim, kFlush, kCache };
  Kind kind = Kind::kFlush;
  uint64_t at = 0;               // bytes
  uint64_t length = 0;           // bytes
  uint32_t flags = 0;            // LIBNBD_CMD_FLAG_…
  std::vector<std::byte> bytes;  // to write, or that were read

  // What happens to the request, filled in by Traffic.
  size_t connection = 0;
  uint64_t begun = 0;  // one number for each event: this one began with it …
  uint64_t ended = 0;  // … and ended with it
  int error = 0;       // errno

  std::string describe() const;
};

// One thread drives all of them, so that a test may know what was in flight when.
class Traffic {
 public:
  Traffic(const std::string& socket, size_t connections, size_t depth,
          const std::string& export_name = "");
  ~Traffic();
  Traffic(const Traffic&) = delete;
  Traffic& operator=(const Traffic&) = delete;

  uint64_t size() const { return size_; }
  // Whether a request that is in flight names a byte of this range.
  bool busy(uint64_t at, uint64_t length) const;
  // A place near one that is in flight, so that they meet in a cluster; nullopt: there is none.
  std::optional<uint64_t> neighbour(support::Random& random) const;
  // Whether a connection can take one more.
  std::optional<size_t> idle(support::Random& random) const;
  void submit(size_t connection, Request request);
  // The requests that have ended, one at least unless there are none.  Throws std::runtime_error
  // when the server is silent for a minute.
  std::vector<Request> wait();
  // Those that have not ended when nobody will wait for them.
  std::vector<Request> pending() const;
  bool empty() const { return in_flight_.empty(); }
  // Polite, when nothing is in flight.
  void disconnect();

 private:
  struct Close {
    void operator()(nbd_handle* handle) const { nbd_close(handle); }
  };
  struct InFlight {
    Request request;
    int64_t cookie;
  };
  void collect(std::vector<Request>& done);

  const size_t depth_;
  uint64_t size_ = 0;
  uint64_t events_ = 0;
  std::vector<std::unique_ptr<InFlight>> in_flight_;  // before the handles: they know the buffers
  std::vector<std::unique_ptr<nbd_handle, Close>> handles_;
};

// A random request of `kind` that touches no byte that is in flight, to write bytes of its own:
// mostly short, some over several clusters.  nullopt: there was no room, this time.
std::optional<Request> draw_request(support::Random& random, const Traffic& traffic,
                                    Request::Kind kind, uint64_t cluster_size);

}  // namespace vc::test
