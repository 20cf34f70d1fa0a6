#include "copy/copier.h"

#include "copy/copy_job.h"

namespace vc::copy {

namespace {

class NoProgress final : public Progress {
  void update(uint64_t /*done*/, uint64_t /*total*/) override {}
};

}  // namespace

Result<void> check(const CopyOptions& options, const Cancel& cancel) {
  NoProgress none;
  return CopyJob(options, none, cancel).check();
}

Result<CopySummary> copy(const CopyOptions& options, Progress& progress, const Cancel& cancel) {
  return CopyJob(options, progress, cancel).run();
}

}  // namespace vc::copy
