#include "live/context.h"

namespace vc::live {

Result<Seconds> while_paused(const Context& context, const std::vector<Journal*>& journals,
                             const std::function<Result<void>()>& action) {
  for (Journal* const journal : journals) RETURN_IF_ERROR(journal->set_paused(true));
  RETURN_IF_ERROR(context.guardian.arm(context.domain.uri(), context.domain.uuid()));
  const auto start = std::chrono::steady_clock::now();
  auto done = context.domain.suspend();
  if (done) done = action();
  // Also after a failed suspend(), which may have paused the guest.
  auto resumed = context.domain.resume();
  const Seconds elapsed = std::chrono::steady_clock::now() - start;
  const auto activity = context.domain.activity();
  if (activity && *activity == libvirt::LiveDomain::Activity::kRuns) resumed = {};
  if (resumed) {
    RETURN_IF_ERROR(context.guardian.disarm());
    for (Journal* const journal : journals) RETURN_IF_ERROR(journal->set_paused(false));
  }
  RETURN_IF_ERROR(done);
  // The guardian stays armed: it resumes the guest when this process ends.
  RETURN_IF_ERROR(resumed);
  return elapsed;
}

}  // namespace vc::live
