#include "nbd/block_status.h"

#include <algorithm>

namespace vc::nbd {

namespace {

// The protocol has 32-bit lengths; some servers support only 31 bits.
constexpr uint64_t kLargestWindow = uint64_t{2} << 30;
constexpr uint64_t kSmallestWindow = 1 << 20;
// After this many rejections of the smallest request in a row, the server is not asked any more.
constexpr unsigned kMostRefused = 16;

// The number of answers before the window grows again.
constexpr unsigned kGoodBeforeMore = 16;

}  // namespace

NbdStatus::NbdStatus(std::string context, uint64_t alignment)
    : context_(std::move(context)),
      smallest_(std::max(kSmallestWindow, alignment)),
      window_(std::max(kLargestWindow, alignment)) {}

Result<void> NbdStatus::ask(NbdSession& session, uint64_t at, uint64_t length,
                            std::vector<Stretch>& out) {
  if (silent_ || !offered(session)) {
    out.push_back({at, length, false, 0});
    return {};
  }
  const size_t before = out.size();
  while (true) {
    const uint64_t window = std::min(length, window_);
    StatusReply answer(context_, at, at + window, out);
    NbdReply reply;
    auto done = session.connection().block_status(window, at, answer.callback(), reply);
    if (done) done = session.connection().wait(reply, "block status");
    // Discards the stretches of a failed request.
    if (!done) out.resize(before);
    if (done && answer.reached() > at) {
      session.answered();
      answered_ = true;
      refused_ = 0;
      // Shrinks the window when answers are truncated and would be sent twice; else grows it
      // slowly, since a request that was rejected once will be rejected again.
      if (answer.truncated())
        window_ = std::max(window_ / 4, smallest_);
      else if (++good_ % kGoodBeforeMore == 0)
        window_ = std::min(window_ * 2, std::max(kLargestWindow, smallest_));
      return {};
    }
    if (!done) {
      Error error = std::move(done).error();
      if (error.kind() == Error::Kind::kCancelled) return fail(std::move(error));
      if (session.is_loss(error)) {
        RETURN_IF_ERROR(session.restore(std::move(error)));
        continue;
      }
    }
    // The server is alive but rejects the request: a shorter request may work.
    session.answered();
    if (window > smallest_) {
      window_ = smallest_;
      while (window_ * 4 < window) window_ *= 4;
      continue;
    }
    silent_ = !answered_ || ++refused_ >= kMostRefused;
    out.push_back({at, window, false, 0});
    return {};
  }
}

}  // namespace vc::nbd
