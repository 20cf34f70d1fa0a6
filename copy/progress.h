// How far a copy is, told to whoever wants to draw it.
#pragma once

#include <cstdint>

namespace copy {

class Progress {
 public:
  virtual ~Progress() = default;
  // `done` of `total` guest bytes: copied, or known to need no copying.  Never falls.  Called from
  // any thread of the pipeline, one at a time, often: be quick.
  virtual void update(uint64_t done, uint64_t total) = 0;
};

}  // namespace copy
