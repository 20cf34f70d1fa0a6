// How far a copy is, told to whoever wants to draw it.
#pragma once

#include <cstdint>

namespace copy {

// What a job is at.
enum class Phase {
  kBench,   // a disk is put under load
  kLayout,  // going through the source to learn what a file will be like that is to be streamed
  kCopy,
  kVerify,
  kTrim,  // in an appliance
  kCompare,
  kMeasure,
  kCheck,
  kSnapshot,
};

inline const char* to_string(Phase phase) {
  switch (phase) {
    case Phase::kBench:
      return "bench";
    case Phase::kLayout:
      return "layout";
    case Phase::kVerify:
      return "verify";
    case Phase::kTrim:
      return "trim";
    case Phase::kCompare:
      return "compare";
    case Phase::kMeasure:
      return "measure";
    case Phase::kCheck:
      return "check";
    case Phase::kSnapshot:
      return "snapshot";
    case Phase::kCopy:
      break;
  }
  return "copy";
}

// All of it is called from any thread of a pipeline, one call at a time.
class Progress {
 public:
  // The total of a source that does not say how long it is, such as a pipe.
  static constexpr uint64_t kUnknown = UINT64_MAX;

  virtual ~Progress() = default;

  // The next part of the job begins, and counts from 0 again.  A job begins with kCopy, which need
  // not be said.  For those who do not care: what update () says tells all the same.
  virtual void begin(Phase /*phase*/) {}

  // `done` of `total` guest bytes (or of kUnknown): copied, or known to need no copying.  Within a
  // phase `done` never falls; a total that was unknown may become known, when the end is reached.
  // Comes often: be quick.
  virtual void update(uint64_t done, uint64_t total) = 0;
};

}  // namespace copy
