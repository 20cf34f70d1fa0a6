#include "live/context.h"

#include <chrono>
#include <thread>

#include "base/caught.h"

namespace vc::live {

namespace {

// libvirt's daemon may be starting again.
constexpr unsigned kTries = 240;
constexpr std::chrono::milliseconds kBetweenTries{500};

}  // namespace

void resume_domain(const std::string& task) {
  const size_t between = task.find('\t');
  if (between == std::string::npos) return;
  for (unsigned i = 0; i < kTries; ++i) {
    if (auto domain =
            libvirt::LiveDomain::open(task.substr(0, between), task.substr(between + 1))) {
      const auto activity = domain->activity();
      if (activity && *activity != libvirt::LiveDomain::Activity::kPausedByUser) return;
      if (activity && domain->resume()) return;
    }
    std::this_thread::sleep_for(kBetweenTries);
  }
}

Result<Seconds> while_paused(const Context& context, const std::vector<Journal*>& journals,
                             const std::function<Result<void>()>& action) {
  for (Journal* const journal : journals) RETURN_IF_ERROR(journal->set_paused(true));
  RETURN_IF_ERROR(context.guardian.arm(context.domain.uri() + "\t" + context.domain.uuid()));
  const auto start = std::chrono::steady_clock::now();
  auto done = context.domain.suspend();
  if (done) done = caught(context.domain.name(), action);
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
