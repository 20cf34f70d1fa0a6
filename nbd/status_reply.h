// The server's answer to one block status request.
#pragma once

#include <libnbd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace vc::nbd {

struct StatusStretch {
  uint64_t at = 0;      // offset in the disk, bytes
  uint64_t length = 0;  // bytes, at least 1
  bool known = false;   // the server has answered for this range
  uint32_t flags = 0;   // status flags in the answer
};

// Stores the stretches of an answer, which may be too long or too short, or be about something
// else: bounded memory whatever the server sends. libnbd holds a pointer to the object until the
// request is done.
class StatusReply {
 public:
  // Appends stretches of `context` for [at, end) to `out`: in order, without gaps, from `at` on.
  // `context` and `out` must outlive the object.
  StatusReply(const std::string& context, uint64_t at, uint64_t end,
              std::vector<StatusStretch>& out)
      : context_(context), out_(out), at_(at), end_(end) {}
  StatusReply(const StatusReply&) = delete;
  StatusReply& operator=(const StatusReply&) = delete;

  nbd_extent_callback callback();

  // Returns the end of the stretches so far; `at` if there are none.
  uint64_t reached() const { return at_; }
  // Returns whether stretches were left out because there were too many.
  bool truncated() const { return left_ == 0; }

 private:
  // The most stretches to store of one answer.
  static constexpr size_t kMost = 16384;

  void add(const char* name, uint64_t offset, const uint32_t* entries, size_t count);

  const std::string& context_;
  std::vector<StatusStretch>& out_;
  uint64_t at_;
  const uint64_t end_;
  size_t left_ = kMost;
};

}  // namespace vc::nbd
