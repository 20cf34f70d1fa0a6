#include "nbd/status_reply.h"

#include <algorithm>

namespace vc::nbd {

void StatusReply::add(const char* name, uint64_t offset, const uint32_t* entries, size_t count) {
  if (context_ != name || offset != at_) return;
  for (size_t i = 0; i + 1 < count && at_ < end_ && left_ > 0; i += 2) {
    const uint64_t length = std::min<uint64_t>(entries[i], end_ - at_);
    if (length == 0) break;
    const uint32_t flags = entries[i + 1];
    if (left_ < kMost && out_.back().flags == flags) {
      out_.back().length += length;
    } else {
      out_.push_back({at_, length, true, flags});
      --left_;
    }
    at_ += length;
  }
}

nbd_extent_callback StatusReply::callback() {
  const auto call = [](void* self, const char* name, uint64_t offset, uint32_t* entries,
                       size_t count, int* /*error*/) {
    static_cast<StatusReply*>(self)->add(name, offset, entries, count);
    return 0;
  };
  return {call, this, nullptr};
}

}  // namespace vc::nbd
