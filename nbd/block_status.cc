#include "nbd/block_status.h"

#include <algorithm>

namespace vc::nbd {

namespace {

// The protocol has 32-bit lengths; some servers support only 31 bits.
constexpr uint64_t kLargestWindow = uint64_t{2} << 30;
constexpr uint64_t kSmallestWindow = 1 << 20;
// Most stretches of one answer to store. The rest is requested again.
constexpr size_t kMostStretches = 16384;
// After this many rejections of the smallest request in a row, the server is not asked any more.
constexpr unsigned kMostRefused = 16;

// The number of answers before the window grows again.
constexpr unsigned kGoodBeforeMore = 16;

// Stores the server's answer for [at, end), which may be longer or shorter than the range.
struct Reader {
  const std::string& context;
  std::vector<NbdStatus::Stretch>& out;
  uint64_t at;
  uint64_t end;
  size_t left = kMostStretches;

  void add(const char* name, uint64_t offset, const uint32_t* entries, size_t count) {
    if (context != name || offset != at) return;
    for (size_t i = 0; i + 1 < count && at < end && left > 0; i += 2) {
      const uint64_t length = std::min<uint64_t>(entries[i], end - at);
      if (length == 0) break;
      const uint32_t flags = entries[i + 1];
      if (left < kMostStretches && out.back().flags == flags) {
        out.back().length += length;
      } else {
        out.push_back({at, length, true, flags});
        --left;
      }
      at += length;
    }
  }

  static int call(void* self, const char* name, uint64_t offset, uint32_t* entries, size_t count,
                  int* /*error*/) {
    static_cast<Reader*>(self)->add(name, offset, entries, count);
    return 0;
  }
};

}  // namespace

NbdStatus::NbdStatus(std::string context, uint64_t alignment)
    : context_(std::move(context)),
      smallest_(std::max(kSmallestWindow, alignment)),
      window_(std::max(kLargestWindow, alignment)) {}

Result<void> NbdStatus::ask(NbdLine& line, uint64_t at, uint64_t length,
                            std::vector<Stretch>& out) {
  if (silent_ || !offered(line)) {
    out.push_back({at, length, false, 0});
    return {};
  }
  const size_t before = out.size();
  while (true) {
    const uint64_t window = std::min(length, window_);
    Reader reader{context_, out, at, at + window};
    const nbd_extent_callback on_extent{Reader::call, &reader, nullptr};
    NbdReply reply;
    auto done = line.connection().block_status(window, at, on_extent, reply);
    if (done) done = line.connection().wait(reply, "block status");
    // Discards the stretches of a failed request.
    if (!done) out.resize(before);
    if (done && reader.at > at) {
      line.answered();
      answered_ = true;
      refused_ = 0;
      // Shrinks the window when answers are truncated and would be sent twice; else grows it
      // slowly, since a request that was rejected once will be rejected again.
      if (reader.left == 0)
        window_ = std::max(window_ / 4, smallest_);
      else if (++good_ % kGoodBeforeMore == 0)
        window_ = std::min(window_ * 2, std::max(kLargestWindow, smallest_));
      return {};
    }
    if (!done) {
      Error error = std::move(done).error();
      if (error.kind() == Error::Kind::kCancelled) return fail(std::move(error));
      if (line.is_loss(error)) {
        RETURN_IF_ERROR(line.restore(std::move(error)));
        continue;
      }
    }
    // The server is alive but rejects the request: a shorter request may work.
    line.answered();
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
