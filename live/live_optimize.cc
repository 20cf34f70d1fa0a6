#include "live/live_optimize.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/retry.h"
#include "live/disk_checks.h"
#include "live/end_of_run.h"
#include "live/live_disk.h"
#include "live/qmp_optimize.h"
#include "storage/file_storage.h"

namespace vc::live {

namespace {

using libvirt::LiveDomain;

constexpr uint64_t kLeastTrim = 1 << 20;  // bytes; smaller free ranges free no cluster

struct Request {
  LiveDomain domain;
  std::vector<std::string> targets;  // empty: all disks that can be optimized
};

bool is_path(const std::string& text) {
  struct stat status {};
  return text.find('/') != std::string::npos ||
         (retry(::stat, text.c_str(), &status) == 0 && S_ISREG(status.st_mode));
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> words;
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    if (end > at) words.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

Result<Request> request_of_path(const LiveOptions& options, const std::string& path) {
  RETURN_IF_ERROR(check_no_run(path));
  ASSIGN_OR_RETURN(auto found, LiveDomain::find(options.connection, path));
  if (found) return Request{std::move(found->first), {found->second}};
  return fail(Error::invalid(
      path +
      ": no running domain has this disk: run virt-compact optimize without --live, or "
      "name the libvirt of the domain with --connect"));
}

Result<Request> request_of(const LiveOptions& options, const std::string& text) {
  if (is_path(text)) return request_of_path(options, text);
  const size_t colon = text.find(':');
  ASSIGN_OR_RETURN(LiveDomain domain, LiveDomain::open(options.connection, text.substr(0, colon)));
  if (colon == std::string::npos) return Request{std::move(domain), {}};
  std::vector<std::string> targets = split(text.substr(colon + 1));
  if (targets.empty())
    return fail(Error::invalid(text + ": names no disk after the colon: DOMAIN:vda,vdb"));
  return Request{std::move(domain), std::move(targets)};
}

class LiveRun {
 public:
  LiveRun(const Context& context, std::vector<std::string> targets)
      : context_(context), targets_(std::move(targets)) {}

  Result<std::vector<LiveDiskReport>> run() {
    RETURN_IF_ERROR(check_domain(context_.domain));
    RETURN_IF_ERROR(find_disks());
    if (!context_.options.optimize.dry_run) {
      RETURN_IF_ERROR(trim());
      RETURN_IF_ERROR(take_overlays());
      for (const auto& disk : disks_) finish_or_undo(context_, *disk);
    }
    std::vector<LiveDiskReport> reports;
    reports.reserve(disks_.size());
    for (const auto& disk : disks_) reports.push_back(std::move(disk->report()));
    return reports;
  }

 private:
  // A disk that the user has named must be possible.
  Result<void> find_disks() {
    const bool all = targets_.empty();
    if (all) {
      ASSIGN_OR_RETURN(const auto chains, context_.domain.disks(false));
      for (const libvirt::DiskChain& chain : chains)
        if (chain.device == "disk") targets_.push_back(chain.target);
    }
    for (const std::string& target : targets_) {
      auto disk = LiveDisk::check(context_, target);
      if (disk) {
        disks_.push_back(std::move(*disk));
      } else if (all && disk.error().kind() == Error::Kind::kUnsupported && targets_.size() > 1) {
        context_.observer.warning(disk.error().message());
      } else {
        return fail(disk.error());
      }
    }
    if (!disks_.empty()) return {};
    return fail(Error::invalid(context_.domain.name() + ": has no disk that can be optimized"));
  }

  Result<void> trim() {
    if (context_.cancel.requested()) return fail(Error::cancelled());
    if (!context_.options.trim) return {};
    context_.observer.step("Trimming the filesystems of the guest");
    ASSIGN_OR_RETURN(const std::string why, context_.domain.trim(kLeastTrim));
    if (!why.empty())
      context_.observer.warning(fmt::format(
          "{}: the guest is not trimmed: {}: data of deleted files is copied, unless the guest "
          "discards it: install qemu-guest-agent in it, or run fstrim there",
          context_.domain.name(), why));
    return {};
  }

  Result<void> take_overlays() {
    std::vector<Journal*> journals;
    std::vector<std::pair<std::string, std::string>> overlays;
    auto done = begin(journals, overlays);
    if (done) {
      context_.observer.step("Giving the guest overlays to write to");
      auto pause =
          while_paused(context_, journals, [&] { return context_.domain.snapshot(overlays); });
      if (pause)
        for (const auto& disk : disks_) disk->count_pause(*pause);
      else
        done = fail(pause.error());
    }
    if (done) return {};
    // Some disks may have no journal yet.
    for (size_t i = 0; i < journals.size(); ++i)
      if (auto undone = disks_[i]->undo(); !undone)
        return fail(
            Error(done.error())
                .with_context(fmt::format("{}: run virt-compact rollback {}",
                                          undone.error().message(), disks_[i]->report().disk)));
    return done;
  }

  Result<void> begin(std::vector<Journal*>& journals,
                     std::vector<std::pair<std::string, std::string>>& overlays) {
    for (const auto& disk : disks_) {
      if (context_.cancel.requested()) return fail(Error::cancelled());
      const auto begun = disk->begin();
      if (disk->has_journal()) journals.push_back(&disk->journal());
      RETURN_IF_ERROR(begun);
      overlays.emplace_back(disk->target(), disk->folder().path_to(disk->folder().overlay()));
    }
    return {};
  }

  const Context& context_;
  std::vector<std::string> targets_;
  std::vector<std::unique_ptr<LiveDisk>> disks_;
};

// A run that was stopped, and the state of its guest.
class StoppedRun {
 public:
  static Result<StoppedRun> open(const std::string& path, const LiveOptions& options) {
    ASSIGN_OR_RETURN(StoppedFiles files, open_stopped(path));
    if (const auto& record = files.journal.record(); record && record->qmp)
      return fail(Error::invalid(path +
                                 ": the run was started with --qmp: give --qmp SOCKET again, also "
                                 "if QEMU has ended"));
    ASSIGN_OR_RETURN(LiveDomain domain,
                     LiveDomain::open(options.connection, files.journal.record()->uuid));
    return StoppedRun{std::move(files.folder), std::move(files.journal), std::move(domain)};
  }

  LiveFolder folder;
  Journal journal;
  LiveDomain domain;
};

// Returns true if the domain runs. Resumes a guest that the stopped run has paused.
Result<bool> wake(StoppedRun& run) {
  ASSIGN_OR_RETURN(const auto activity, run.domain.activity());
  switch (activity) {
    case LiveDomain::Activity::kRuns:
      return true;
    case LiveDomain::Activity::kPausedByUser:
      if (!run.journal.record()->paused) break;
      RETURN_IF_ERROR(run.domain.resume());
      return true;
    case LiveDomain::Activity::kPausedOtherwise:
      break;
    case LiveDomain::Activity::kOff:
      if (!run.domain.has_saved_state()) return false;
      return fail(
          Error::invalid(run.domain.name() +
                         ": has a saved state that relies on the files of the run: start it "
                         "first"));
  }
  return fail(Error::invalid(run.domain.name() + ": is paused: resume it first (virsh resume); if "
                                                 "its storage was full, free space before"));
}

Result<LiveDiskReport> complete(const std::string& path, const LiveOptions& options, bool forward,
                                appliance::Observer& observer, Progress& progress,
                                const Cancel& cancel) {
  if (!options.qmp_socket.empty())
    return complete_qmp(path, options, forward, observer, progress, cancel);
  ASSIGN_OR_RETURN(const auto guardian, Guardian::start(resume_domain));
  ASSIGN_OR_RETURN(StoppedRun run, StoppedRun::open(path, options));
  ASSIGN_OR_RETURN(const bool running, wake(run));
  LiveDomain domain = std::move(run.domain);
  const Context context{{*guardian, options, observer, progress, cancel}, domain};
  LiveDisk disk(context, std::move(run.folder), std::move(run.journal));
  ASSIGN_OR_RETURN(const Place place, disk.place(running));
  if (place == Place::kOnFresh) {
    RETURN_IF_ERROR(disk.clean_up());
  } else if (!running) {
    RETURN_IF_ERROR(disk.undo_offline());
  } else if (forward && place != Place::kOnDisk && !disk.is_committing()) {
    RETURN_IF_ERROR(
        optimize::measure(disk.folder().path_to(disk.folder().backup()), disk.report().before));
    disk.measure_requests();
    finish_or_undo(context, disk);
  } else {
    RETURN_IF_ERROR(disk.undo());
  }
  return std::move(disk.report());
}

}  // namespace

Result<std::vector<LiveDiskReport>> optimize_live(const LiveOptions& options,
                                                  appliance::Observer& observer, Progress& progress,
                                                  const Cancel& cancel) {
  if (!options.qmp_socket.empty()) return optimize_qmp(options, observer, progress, cancel);
  ASSIGN_OR_RETURN(const auto guardian, Guardian::start(resume_domain));
  std::vector<Request> requests;
  for (const std::string& text : options.disks) {
    ASSIGN_OR_RETURN(Request request, request_of(options, text));
    const auto same = std::find_if(requests.begin(), requests.end(), [&](const Request& it) {
      return it.domain.uuid() == request.domain.uuid() && !it.targets.empty() &&
             !request.targets.empty();
    });
    if (same == requests.end())
      requests.push_back(std::move(request));
    else
      same->targets.insert(same->targets.end(), request.targets.begin(), request.targets.end());
  }
  std::vector<LiveDiskReport> reports;
  for (Request& request : requests) {
    const Context context{{*guardian, options, observer, progress, cancel}, request.domain};
    auto done = LiveRun(context, request.targets).run();
    if (!done) {
      if (reports.empty() && requests.size() == 1) return fail(done.error());
      LiveDiskReport report;
      report.domain = request.domain.name();
      report.outcome = LiveDiskReport::Outcome::kUndone;
      report.error = done.error().message();
      reports.push_back(std::move(report));
      continue;
    }
    for (LiveDiskReport& report : *done) reports.push_back(std::move(report));
  }
  return reports;
}

Result<LiveDiskReport> resume_live(const std::string& path, const LiveOptions& options,
                                   appliance::Observer& observer, Progress& progress,
                                   const Cancel& cancel) {
  return complete(path, options, true, observer, progress, cancel);
}

Result<LiveDiskReport> undo_live(const std::string& path, const LiveOptions& options,
                                 appliance::Observer& observer, Progress& progress,
                                 const Cancel& cancel) {
  return complete(path, options, false, observer, progress, cancel);
}

bool has_journal(const std::string& path) {
  const auto disk = real_path(path);
  if (!disk) return false;
  const auto folder = LiveFolder::open(*disk, "");
  return folder && folder->has(folder->journal());
}

}  // namespace vc::live
