// Reports the progress of a job to a display.
#pragma once

#include <cstdint>

namespace vc {

// The phase of a job.
enum class Phase {
  kBench,   // a disk is under load
  kLayout,  // reads the source to learn the layout of a file to be streamed
  kCopy,
  kVerify,
  kTrim,  // in an appliance
  kCompare,
  kMeasure,
  kCheck,
  kSnapshot,
  kZeros,  // finds clusters of zeros
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
    case Phase::kZeros:
      return "zeros";
    case Phase::kCopy:
      break;
  }
  return "copy";
}

// Receives progress.  Any thread of a pipeline may call the functions, but only one call runs at a
// time.
class Progress {
 public:
  // The total of a source of unknown length, such as a pipe.
  static constexpr uint64_t kUnknown = UINT64_MAX;

  virtual ~Progress() = default;

  // Starts the next phase of the job; the count restarts at 0.  A job starts in kCopy without a
  // call of begin().  May be ignored: the values passed to update() are sufficient.
  virtual void begin(Phase /*phase*/) {}

  // Reports `done` of `total` guest bytes.  `total` may be kUnknown.  `done` counts bytes that are
  // copied or that need no copying, and never falls within a phase.  An unknown total may become
  // known at the end.  Called often: must be fast.
  virtual void update(uint64_t done, uint64_t total) = 0;
};

}  // namespace vc
