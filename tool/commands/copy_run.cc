#include "tool/commands/copy_run.h"

#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"
#include "tool/text/salvaging.h"

namespace vc::tool {

Result<copy::CopySummary> run_copy(const copy::CopyOptions& options, const Console& console) {
  Cancel cancel;
  const StopSignals signals(cancel);
  ProgressDisplay progress(console.manner());
  auto summary = copy::copy(options, progress, cancel);
  progress.finish();
  if (!summary && summary.error().kind() == Error::Kind::kCancelled)
    return fail(Error::cancelled().with_context(options.destination + ": not written"));
  if (!summary && !options.salvage) return fail(advise_salvage(summary.error()));
  return summary;
}

}  // namespace vc::tool
