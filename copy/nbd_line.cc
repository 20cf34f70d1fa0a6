#include "copy/nbd_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

namespace copy {

using qcow2::Error;
using qcow2::Result;

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kFirstWait{100};
constexpr milliseconds kLongestWait{5000};
constexpr milliseconds kLook{20};

milliseconds wait_before(unsigned retry) {
  return std::min(kFirstWait * (1 << std::min(retry, 10u)), kLongestWait);
}

}  // namespace

Result<std::unique_ptr<NbdLine>> NbdLine::open(std::shared_ptr<NbdEndpoint> endpoint,
                                               std::vector<std::string> contexts, unsigned retries,
                                               const Stop& stop) {
  std::unique_ptr<NbdLine> line(
      new NbdLine(std::move(endpoint), std::move(contexts), retries, stop));
  auto connection = NbdConnection::open(*line->endpoint_, line->contexts_, stop);
  if (!connection) {
    bool final = false;
    return qcow2::fail(line->endpoint_->explain(std::move(connection).error(), final));
  }
  line->connection_ = std::move(*connection);
  line->size_ = nbd_get_size(line->handle());
  if (line->size_ < 0) return qcow2::fail(line->connection_->last_error());
  line->minimum_ = std::max<int64_t>(nbd_get_block_size(line->handle(), LIBNBD_SIZE_MINIMUM), 0);
  return line;
}

bool NbdLine::is_loss(const Error& error) {
  if (error.kind() != Error::Kind::kSystem) return false;
  // ESHUTDOWN is a server's way to say that it is about to end.  ENOTCONN comes from no server:
  // libnbd answers so what was under way, perhaps before it calls the connection dead.
  return !connection_ || connection_->lost() || error.errnum() == ESHUTDOWN ||
         error.errnum() == ENOTCONN;
}

Result<void> NbdLine::check_same(NbdConnection& connection) const {
  const int64_t size = nbd_get_size(connection.handle());
  if (size != size_)
    return qcow2::fail(Error::protocol(
        EIO, fmt::format("{}: the server came back with another disk: of {} bytes, not {}", name(),
                         size, size_)));
  const int64_t minimum = nbd_get_block_size(connection.handle(), LIBNBD_SIZE_MINIMUM);
  if (std::max<int64_t>(minimum, 0) > std::max<int64_t>(minimum_, 1))
    return qcow2::fail(Error::protocol(
        EIO, fmt::format("{}: the server came back with larger blocks: {} bytes, not {}", name(),
                         minimum, minimum_)));
  return {};
}

// One try.  An error that is final sets given_up_.
Result<void> NbdLine::try_again() {
  ASSIGN_OR_RETURN(auto next, NbdConnection::open(*endpoint_, contexts_, stop_));
  if (auto same = check_same(*next); !same) {
    // Asking again would give the same answer.
    given_up_ = true;
    return same;
  }
  connection_ = std::move(next);
  ++generation_;
  if (!check_) return {};
  checking_ = true;
  lost_in_check_ = false;
  auto checked = check_(*this);
  checking_ = false;
  if (!checked) {
    connection_.reset();
    given_up_ = !lost_in_check_;
  }
  return checked;
}

Result<void> NbdLine::restore(Error why) {
  // A server that takes one client at a time must see this one go.
  connection_.reset();
  if (checking_) {
    // The restore () that checks goes on.
    lost_in_check_ = true;
    return qcow2::fail(std::move(why));
  }
  bool final = false;
  Error last = endpoint_->explain(std::move(why), final);
  while (!final && failures_ < retries_) {
    const auto until = Clock::now() + wait_before(failures_++);
    while (Clock::now() < until) {
      if (stop_.requested()) return qcow2::fail(Error::cancelled());
      std::this_thread::sleep_for(kLook);
    }
    auto tried = try_again();
    if (tried) return {};
    last = std::move(tried).error();
    if (given_up_ || last.kind() == Error::Kind::kCancelled) return qcow2::fail(std::move(last));
    last = endpoint_->explain(std::move(last), final);
  }
  given_up_ = true;
  if (final || retries_ == 0) return qcow2::fail(std::move(last));
  return qcow2::fail(Error::protocol(
      last.errnum(), fmt::format("{} (given up after connecting again {} time{})", last.message(),
                                 failures_, failures_ == 1 ? "" : "s")));
}

}  // namespace copy
