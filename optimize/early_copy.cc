#include "optimize/early_copy.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/caught.h"
#include "base/poll_interval.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/extent.h"

namespace vc::optimize {

using copy::LocalSource;

namespace {

constexpr size_t kExtentsAtOnce = 1024;

}  // namespace

EarlyCopy::EarlyCopy(copy::CopyOptions how, uint64_t end, Progress& progress, Cancel& work)
    : how_(std::move(how)), progress_(progress), work_(work) {
  how_.late = copy::LateSource{end, [this] { return wait_for_rest(); }};
  thread_ = std::thread([this] { run(); });
}

EarlyCopy::~EarlyCopy() {
  if (!thread_.joinable()) return;
  work_.request();
  thread_.join();
}

void EarlyCopy::run() {
  auto result = caught("the early copy", [&] { return copy::copy(how_, progress_, work_); });
  if (!result) work_.request();
  const MutexLock lock(mutex_);
  outcome_ = std::move(result);
}

Result<std::unique_ptr<LocalSource>> EarlyCopy::wait_for_rest() {
  elapsed_ = std::chrono::steady_clock::now() - start_;
  MutexLock lock(mutex_);
  while (!remaining_source_) {
    if (work_.requested()) return fail(Error::cancelled());
    changed_.wait_for(lock, kPollInterval);
  }
  return std::move(remaining_source_);
}

std::optional<Error> EarlyCopy::failure() {
  const MutexLock lock(mutex_);
  if (!outcome_ || *outcome_) return std::nullopt;
  return outcome_->error();
}

Result<copy::CopySummary> EarlyCopy::finish(std::unique_ptr<LocalSource> rest) {
  progress_.show();
  {
    const MutexLock lock(mutex_);
    remaining_source_ = std::move(rest);
  }
  changed_.notify_all();
  thread_.join();
  const MutexLock lock(mutex_);
  return std::move(*outcome_);
}

Result<bool> EarlyCopy::is_unchanged(const LocalSource& overlay) const {
  const uint64_t end = how_.late->begin;
  const qcow2::Disk above({overlay.disk().layers().front()});
  std::vector<qcow2::Extent> extents;
  for (GuestOffset at; at.value() < end; at = extents.back().end()) {
    extents.clear();
    RETURN_IF_ERROR(above.map(at, end - at.value(), extents, kExtentsAtOnce));
    if (std::any_of(extents.begin(), extents.end(), [](const qcow2::Extent& it) {
          return it.kind != qcow2::ExtentKind::kUnallocated;
        }))
      return false;
  }
  return true;
}

}  // namespace vc::optimize
