// A model of the possible values of each byte of a disk after failed requests, or after a kill.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/plugin/traffic.h"

namespace vc::test {

// A byte has its certain value, or the value of a later request that may have been done.
class PossibleBytes {
 public:
  explicit PossibleBytes(std::vector<std::byte> bytes)
      : sure_(std::move(bytes)), trimmed_(sure_.size()), version_(sure_.size()) {}

  // Adds a write, zero or trim that may have been done completely, partly, or not at all.
  void maybe(const Request& request) { changes_.push_back(request); }
  // Adds a request that was done and is permanent.
  void surely(const Request& request) {
    changes_.push_back(request);
    settle([&](const Request& it) { return it.begun == request.begun; });
  }
  // Adds a flush. It makes all requests permanent that ended before the flush began.
  void flushed(const Request& flush) {
    settle([&](const Request& it) { return it.ended != 0 && it.ended < flush.begun; });
  }

  // Sets the content of the whole disk, which is permanent, except that a trim may still zero parts
  // of it.
  void observed(std::vector<std::byte> found);

  // Returns the first impossible byte of the disk in words, or an empty string.
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
