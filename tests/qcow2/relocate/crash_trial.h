// An image whose moves are interrupted by losses of power.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/qcow2/relocate/image_states.h"
#include "tests/qcow2/write/crash_storage.h"

namespace vc::test {

// Records possible files after a loss of power at each flush.
class CrashTrial {
 public:
  // Completes the interrupted work on an image, which has no leaks but those in `staying`.
  using Staying = std::shared_ptr<const qcow2::StayingClusters>;
  using GoOn = std::function<void(const std::shared_ptr<Storage>& storage, const Staying& staying)>;

  // Reads the image at `path`, and frees its leaks.
  CrashTrial(const std::string& path, uint64_t seed, support::Random& random);

  const std::shared_ptr<CrashStorage>& storage() const { return storage_; }

  // Judges all files since the last call: content as before, leaks at most.  Calls `go_on` for some
  // of them, and judges these again: leaks that cannot be freed are as before.
  void judge_crashes(const GoOn& go_on);
  // The same, and judges the image itself.
  void judge_end(const GoOn& go_on);

 private:
  support::Random& random_;
  const std::shared_ptr<CrashStorage> storage_;
  States states_;
  std::vector<Bytes> crashes_;
};

}  // namespace vc::test
