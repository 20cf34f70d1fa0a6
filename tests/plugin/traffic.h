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
  std::vector<std::byte> bytes;  // to write, or read

  // The result of the request, set by Traffic.
  size_t connection = 0;
  uint64_t begun = 0;  // one number per event: the event that began it …
  uint64_t ended = 0;  // … and the event that ended it
  int error = 0;       // errno

  std::string describe() const;
};

// One thread drives all connections, so that a test knows which requests overlap in time.
class Traffic {
 public:
  Traffic(const std::string& socket, size_t connections, size_t depth,
          const std::string& export_name = "");
  ~Traffic();
  Traffic(const Traffic&) = delete;
  Traffic& operator=(const Traffic&) = delete;

  uint64_t size() const { return size_; }
  // Returns true if a request in flight overlaps this range.
  bool busy(uint64_t at, uint64_t length) const;
  // Returns an offset in the same cluster as a request in flight, or nullopt if there is none.
  std::optional<uint64_t> neighbour(support::Random& random) const;
  // Returns a connection that can accept another request. nullopt if there is none.
  std::optional<size_t> idle(support::Random& random) const;
  void submit(size_t connection, Request request);
  // Returns the requests that have ended: at least one, unless none is in flight. Throws
  // std::runtime_error if the server does not answer for a minute.
  std::vector<Request> wait();
  // Returns the requests that have not ended, and abandons them.
  std::vector<Request> pending() const;
  bool empty() const { return in_flight_.empty(); }
  // Disconnects properly if nothing is in flight.
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
  std::vector<std::unique_ptr<InFlight>> in_flight_;  // before the handles, which use it
  std::vector<std::unique_ptr<nbd_handle, Close>> handles_;
};

// Returns a random request of `kind` that overlaps no request in flight, with its own bytes to
// write. Most are short, some cover several clusters. Returns nullopt if no free range was found.
std::optional<Request> draw_request(support::Random& random, const Traffic& traffic,
                                    Request::Kind kind, uint64_t cluster_size);

}  // namespace vc::test
