#include "live/block_job.h"

#include <fmt/format.h>

#include <cerrno>
#include <thread>

#include "base/poll_interval.h"

namespace vc::live {

Result<void> check_reserve(const RunContext& context, const LiveFolder& folder) {
  ASSIGN_OR_RETURN(const uint64_t free, folder.free_space());
  if (free >= context.options.reserve) return {};
  return fail(Error::system(
      ENOSPC, fmt::format("{}: only {} bytes are free, less than the reserve of {} bytes that "
                          "keeps the guest from stopping (--reserve)",
                          folder.directory().path(), free, context.options.reserve)));
}

Result<void> wait_until_ready(const Context& context, const LiveFolder& folder,
                              const std::string& target, Patience patience) {
  while (true) {
    ASSIGN_OR_RETURN(const libvirt::DiskChain disk, context.domain.disk(target, false));
    if (!disk.mirror)
      return fail(Error::protocol(
          EIO, fmt::format("{}: the block job of {} has failed: the log of QEMU tells why; full "
                           "storage is a frequent cause",
                           context.domain.name(), target)));
    if (disk.mirror->ready) return {};
    if (patience == Patience::kUntilCancelled && context.cancel.requested())
      return fail(Error::cancelled());
    if (patience != Patience::kUntilReady) RETURN_IF_ERROR(check_reserve(context, folder));
    ASSIGN_OR_RETURN(const auto job, context.domain.job(target));
    if (job) context.observer.progress(job->done, job->total);
    std::this_thread::sleep_for(kPollInterval);
  }
}

Result<void> end_job(const Context& context, const std::string& target) {
  ASSIGN_OR_RETURN(libvirt::DiskChain disk, context.domain.disk(target, false));
  if (!disk.mirror) return {};
  RETURN_IF_ERROR(context.domain.abort(target));
  while (disk.mirror) {
    std::this_thread::sleep_for(kPollInterval);
    ASSIGN_OR_RETURN(disk, context.domain.disk(target, false));
  }
  return {};
}

}  // namespace vc::live
