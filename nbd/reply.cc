#include "nbd/reply.h"

#include <cerrno>
#include <string>

namespace vc::nbd {

namespace {

// Most out-of-order chunks to store. Limits the memory, whatever the server sends. Known servers
// send chunks in order.
constexpr size_t kMostAhead = 1024;

}  // namespace

void NbdReply::reset() {
  expect(0, 0);
}

void NbdReply::expect(uint64_t at, uint64_t length) {
  done_ = false;
  lie_ = false;
  errnum_ = 0;
  reached_ = at;
  end_ = at + length;
  ahead_.clear();
}

void NbdReply::complete(int errnum) {
  when_ = std::chrono::steady_clock::now();
  lie_ = errnum == 0 && (lie_ || reached_ != end_);
  errnum_ = lie_ ? EPROTO : errnum;
  done_ = true;
  ahead_.clear();
}

void NbdReply::add(uint64_t at, uint64_t length) {
  const uint64_t end = at + length;
  const auto later = ahead_.lower_bound(at);
  const bool overlaps = at < reached_ || end < at || end > end_ ||
                        (later != ahead_.end() && later->first < end) ||
                        (later != ahead_.begin() && std::prev(later)->second > at);
  if (lie_ || overlaps || length == 0 || ahead_.size() >= kMostAhead) {
    lie_ = true;
    return;
  }
  if (at != reached_) {
    ahead_.emplace(at, end);
    return;
  }
  reached_ = end;
  for (auto it = ahead_.begin(); it != ahead_.end() && it->first == reached_; it = ahead_.erase(it))
    reached_ = it->second;
}

// No server can send EPROTO: libnbd sets it for an answer that it cannot accept.
bool NbdReply::lied() const {
  return errnum_ == EPROTO;
}

Error NbdReply::error(const std::string& what) const {
  if (lie_)
    return Error::protocol(
        EPROTO,
        what + ": the server's answer does not match the request: parts are missing or repeated");
  return Error::system(errnum_, what);
}

nbd_completion_callback NbdReply::on_completion() {
  const auto call = [](void* self, int* error) {
    static_cast<NbdReply*>(self)->complete(*error);
    return 1;  // retires the command: nbd_aio_command_completed is not called
  };
  return {call, this, nullptr};
}

nbd_chunk_callback NbdReply::on_chunk() {
  const auto call = [](void* self, const void* /*bytes*/, size_t count, uint64_t offset,
                       unsigned status, int* /*error*/) {
    if (status != LIBNBD_READ_ERROR) static_cast<NbdReply*>(self)->add(offset, count);
    return 0;
  };
  return {call, this, nullptr};
}

}  // namespace vc::nbd
