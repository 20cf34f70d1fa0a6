#include "nbd/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include "base/poll_interval.h"

namespace vc::nbd {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kFirstDelay{100};
constexpr milliseconds kLongestDelay{5000};

milliseconds wait_before(unsigned retry) {
  return std::min(kFirstDelay * (1 << std::min(retry, 10u)), kLongestDelay);
}

}  // namespace

Result<std::unique_ptr<NbdSession>> NbdSession::open(std::shared_ptr<NbdEndpoint> endpoint,
                                                     std::vector<std::string> contexts,
                                                     const NbdTuning& tuning, const Stop& stop) {
  std::unique_ptr<NbdSession> session(
      new NbdSession(std::move(endpoint), std::move(contexts), tuning, stop));
  auto connection =
      NbdConnection::open(*session->endpoint_, session->contexts_, session->timeout_, stop);
  if (!connection) {
    bool final = false;
    return fail(session->endpoint_->explain(std::move(connection).error(), final));
  }
  session->connection_ = std::move(*connection);
  session->limits_ = session->connection_->limits();
  return session;
}

bool NbdSession::is_loss(const Error& error) {
  if (error.kind() != Error::Kind::kSystem) return false;
  // Servers send ESHUTDOWN when they are about to end.  No server sends ENOTCONN: libnbd sets it
  // for outstanding requests, possibly before it reports the connection as dead.
  return connection_->lost() || error.errnum() == ESHUTDOWN || error.errnum() == ENOTCONN;
}

Result<void> NbdSession::check_same(const NbdLimits& next) const {
  if (next.size != limits_.size)
    return fail(Error::protocol(
        EIO,
        fmt::format("{}: after a reconnect, the server has another disk: {} bytes instead of {}",
                    name(), next.size, limits_.size)));
  if (next.minimum > limits_.minimum)
    return fail(
        Error::protocol(EIO, fmt::format("{}: after a reconnect, the server has a larger minimum "
                                         "block size: {} bytes instead of {}",
                                         name(), next.minimum, limits_.minimum)));
  return {};
}

// Makes one attempt.  Sets given_up_ on a final error.
Result<void> NbdSession::try_again() {
  ASSIGN_OR_RETURN(auto next, NbdConnection::open(*endpoint_, contexts_, timeout_, stop_));
  if (auto same = check_same(next->limits()); !same) {
    // Another attempt would give the same result.
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
    connection_->close();
    given_up_ = !lost_in_check_;
  }
  return checked;
}

Result<void> NbdSession::restore(Error why) {
  if (given_up_) return fail(std::move(why));
  // A server that accepts one client at a time must see this client disconnect.
  connection_->drain();
  connection_->close();
  if (checking_) {
    // The outer restore () continues.
    lost_in_check_ = true;
    return fail(std::move(why));
  }
  bool final = false;
  Error last = endpoint_->explain(std::move(why), final);
  while (!final && failures_ < retries_) {
    const auto until = Clock::now() + wait_before(failures_++);
    while (Clock::now() < until) {
      if (stop_.requested()) return fail(Error::cancelled());
      std::this_thread::sleep_for(kPollInterval);
    }
    auto tried = try_again();
    if (tried) return {};
    last = std::move(tried).error();
    if (given_up_ || last.kind() == Error::Kind::kCancelled) return fail(std::move(last));
    last = endpoint_->explain(std::move(last), final);
  }
  given_up_ = true;
  if (final || retries_ == 0) return fail(std::move(last));
  return fail(Error::protocol(
      last.errnum(), fmt::format("{} (gave up after reconnecting {} time{})", last.message(),
                                 failures_, failures_ == 1 ? "" : "s")));
}

}  // namespace vc::nbd
