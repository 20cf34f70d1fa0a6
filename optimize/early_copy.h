// Starts a copy while the appliance still trims the guest.
//
// The appliance changes an overlay of the disk. All data before the first offset that it may change
// is copied from the disk meanwhile. The rest is copied from the overlay afterwards.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>

#include "base/cancel.h"
#include "base/mutex.h"
#include "base/progress.h"
#include "base/result.h"
#include "copy/copier.h"
#include "copy/source/local_source.h"

namespace vc::optimize {

class EarlyCopy {
 public:
  // Starts to copy the first `end` bytes of the source in `how`, an image file, to a file. Reports
  // to `progress` only within finish(). Stops when `work` is requested, and requests `work` when
  // the copy fails. `progress` and `work` must outlive the object.
  EarlyCopy(copy::CopyOptions how, uint64_t end, Progress& progress, Cancel& work);
  EarlyCopy(const EarlyCopy&) = delete;
  EarlyCopy& operator=(const EarlyCopy&) = delete;
  // Without finish(): requests `work`, and leaves no file.
  ~EarlyCopy();

  // Returns the error of a failed copy. nullopt if the copy has not failed so far.
  std::optional<Error> failure();
  // Copies the rest from `rest`, whose first `end` bytes must equal those of the source. May be
  // called once.
  Result<copy::CopySummary> finish(std::unique_ptr<copy::LocalSource> rest);
  // Returns true if the overlay leaves the first `end` bytes of the source unchanged.
  Result<bool> is_unchanged(const copy::LocalSource& overlay) const;
  // Returns the time that the first `end` bytes took. Valid after finish().
  std::chrono::duration<double> elapsed() const { return elapsed_; }

 private:
  class HeldProgress final : public Progress {
   public:
    explicit HeldProgress(Progress& to) : to_(to) {}
    void begin(Phase phase) override {
      if (shown_) to_.begin(phase);
    }
    void update(uint64_t done, uint64_t total) override {
      if (shown_) to_.update(done, total);
    }
    void show() { shown_ = true; }

   private:
    Progress& to_;
    std::atomic<bool> shown_{false};
  };

  void run();
  Result<std::unique_ptr<copy::LocalSource>> wait_for_rest();

  copy::CopyOptions how_;
  HeldProgress progress_;
  Cancel& work_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::duration<double> elapsed_{};  // written by thread_ before it asks for the rest

  Mutex mutex_;
  ConditionVariable changed_;
  std::unique_ptr<copy::LocalSource> remaining_source_ GUARDED_BY(mutex_);
  std::optional<Result<copy::CopySummary>> outcome_ GUARDED_BY(mutex_);

  std::thread thread_;
};

}  // namespace vc::optimize
