// What each byte of a disk may be when requests fail, or the server is killed amid them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/plugin/traffic.h"

namespace vc::test {

// A byte is what it surely is, or what a request that came later may have put there.
class PossibleBytes {
 public:
  explicit PossibleBytes(std::vector<std::byte> bytes)
      : sure_(std::move(bytes)), trimmed_(sure_.size()), version_(sure_.size()) {}

  // A write, zero or trim that may have been done, or not, or in part.
  void maybe(const Request& request) { changes_.push_back(request); }
  // One that was done, and will stay.
  void surely(const Request& request) {
    changes_.push_back(request);
    settle([&](const Request& it) { return it.begun == request.begun; });
  }
  // A flush: what ended before it began is there to stay.
  void flushed(const Request& flush) {
    settle([&](const Request& it) { return it.ended != 0 && it.ended < flush.begun; });
  }

  // The whole disk reads as this, and that will stay; but a trim may still become zeros.
  void observed(std::vector<std::byte> found);

  // What is wrong with the bytes of the whole disk; empty: nothing.
  std::string complaint(const std::vector<std::byte>& found) const;

 private:
  static std::byte byte_of(const Request& request, uint64_t i) {
    return request.kind == Request::Kind::kWrite ? request.bytes[i] : std::byte{0};
  }
  void apply(const Request& request);

  template <typename Sure>
  void settle(Sure sure) {
    for (const Request& it : changes_)
      if (sure(it)) apply(it);
    std::erase_if(changes_, sure);
  }

  std::vector<std::byte> sure_;
  std::vector<uint64_t> trimmed_;  // Request::begun of the last trim: later than version_ …
  std::vector<uint64_t> version_;  // … of what made sure_, it may be zero, too
  std::vector<Request> changes_;   // that may have been done, in the order of their ends
};

}  // namespace vc::test
