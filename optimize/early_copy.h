// A copy that starts while the appliance still trims the guest.
//
// The appliance changes an overlay of the disk.  What comes on the disk before all that it may
// change is copied from the disk meanwhile, and the rest from the overlay.
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
  // Starts to copy the first `end` bytes of the source that `how` names, an image file, to a file.
  // Tells `progress` only within finish().  Stops when `work` is requested, and requests it when
  // the copy fails.  `progress` and `work` must outlive the object.
  EarlyCopy(copy::CopyOptions how, uint64_t end, Progress& progress, Cancel& work);
  EarlyCopy(const EarlyCopy&) = delete;
  EarlyCopy& operator=(const EarlyCopy&) = delete;
  // Without finish(): requests `work`, and leaves no file.
  ~EarlyCopy();

  // Returns the error of a copy that has failed.  nullopt: it has not failed so far.
  std::optional<Error> failure();
  // Copies the rest from `rest`, which has the same bytes as the source before `end`.  May be
  // called once.
  Result<copy::CopySummary> finish(std::unique_ptr<copy::LocalSource> rest);
  // Returns whether an overlay of the source leaves all before `end` to it.
  Result<bool> is_unchanged(const copy::LocalSource& overlay) const;
  // How long it took to copy what is before `end`; after finish().
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
  std::unique_ptr<copy::LocalSource> rest_ GUARDED_BY(mutex_);
  std::optional<Result<copy::CopySummary>> outcome_ GUARDED_BY(mutex_);

  std::thread thread_;
};

}  // namespace vc::optimize
