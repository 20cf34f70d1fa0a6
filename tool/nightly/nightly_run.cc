#include "tool/nightly/nightly_run.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <iterator>
#include <memory>
#include <utility>

#include "base/retry.h"
#include "libvirt/running_domains.h"
#include "qcow2/read/overlay_search.h"
#include "storage/file_size.h"
#include "tool/live/live_run.h"
#include "tool/nightly/disk_checks.h"
#include "tool/nightly/disk_run.h"
#include "tool/nightly/last_results.h"
#include "tool/nightly/old_backup.h"
#include "tool/terminal/signals.h"
#include "tool/terminal/stop_at.h"

namespace vc::tool {

using libvirt::KnownDomain;
using Outcome = NightlyEntry::Outcome;
using Why = NightlyEntry::Why;

namespace {

class Night {
 public:
  Night(const Policy& policy, const NightlyOptions& options, const Console& console,
        Metrics& metrics, LastResults results)
      : policy_(policy),
        options_(options),
        console_(console),
        metrics_(metrics),
        results_(std::move(results)) {
    report_.dry_run = options.dry_run;
  }

  Result<NightlyReport> run() {
    report_.begin = std::time(nullptr);
    const StopSignals signals(cancel_);
    ask_libvirt();
    std::vector<NightlyDisk> disks = select_disks(policy_, domains_);
    sort(disks);
    for (const KnownDomain& domain : domains_)
      if (domain.disks)
        for (const auto& disk : *domain.disks)
          if (!disk.top().empty()) others_.push_back(disk.top());
    // An overlay may be in another folder than its backing file.
    for (const NightlyDisk& disk : disks)
      if (!disk.path.empty()) others_.push_back(disk.path);
    std::unique_ptr<StopAt> stop;
    if (policy_.window && policy_.stop_at_end && !options_.now &&
        policy_.window->contains(report_.begin)) {
      ASSIGN_OR_RETURN(stop, StopAt::start(cancel_, policy_.window->end_after(report_.begin)));
    }
    for (const NightlyDisk& disk : disks) process(disk);
    report_.end = std::time(nullptr);
    return std::move(report_);
  }

 private:
  void ask_libvirt() {
    if (policy_.domains.empty() && policy_.connection.empty()) return;
    std::vector<std::string> uris{policy_.connection};
    if (policy_.connection.empty()) uris = libvirt::running_libvirts();
    if (uris.empty())
      error(
          "no libvirt runs on this machine, so that [[domain]] finds no disks: start it, or name "
          "another one (connect)");
    for (const std::string& uri : uris) {
      auto known = libvirt::known_domains(uri);
      if (!known)
        error(known.error().message());
      else
        std::move(known->begin(), known->end(), std::back_inserter(domains_));
    }
    // The order of libvirt is that of a hash table.
    std::stable_sort(domains_.begin(), domains_.end(),
                     [](const KnownDomain& a, const KnownDomain& b) { return a.name < b.name; });
  }

  void error(const std::string& message) {
    console_.error(message);
    report_.errors.push_back(message);
  }

  // Begins with the disk whose last success is the longest ago, so that a window that is too short
  // for all disks is not always used up by the same ones.
  void sort(std::vector<NightlyDisk>& disks) const {
    const auto success = [&](const NightlyDisk& it) {
      const LastResult* const last = results_.find(it.path);
      return last ? last->success : 0;
    };
    std::stable_sort(disks.begin(), disks.end(), [&](const NightlyDisk& a, const NightlyDisk& b) {
      return success(a) < success(b);
    });
  }

  void process(const NightlyDisk& disk) {
    NightlyEntry entry;
    entry.domain = disk.domain;
    entry.target = disk.target;
    entry.disk = disk.path;
    const LastResult* const last = disk.path.empty() ? nullptr : results_.find(disk.path);
    if (last) {
      entry.last_success = last->success;
      entry.last_outcome = last->outcome;
    }
    bool runs = false;
    const auto skip = check(disk, last, entry, runs);
    if (!skip) {
      entry.outcome = Outcome::kFailed;
      entry.text = skip.error().message();
    } else if (*skip) {
      entry.why = (*skip)->why;
      entry.text = (*skip)->text;
    } else {
      optimize_disk(disk, runs, {options_.dry_run, options_.json, others_}, console_, cancel_,
                    entry);
    }
    if (entry.outcome == Outcome::kFailed) console_.error(disk.name() + ": " + entry.text);
    keep_result(disk, last, entry);
    measure(disk, entry);
    report_.disks.push_back(std::move(entry));
  }

  // Returns why the disk is skipped. In the order of the costs.
  Result<MaybeSkip> check(const NightlyDisk& disk, const LastResult* last, NightlyEntry& entry,
                          bool& runs) {
    if (stop_signal() != 0) return Skip{Why::kStopped, "the run was stopped before"};
    const std::time_t now = std::time(nullptr);
    if (cancel_.requested() || (policy_.window && !options_.now && !policy_.window->contains(now)))
      return Skip{Why::kWindow, fmt::format("it is not in the time window {}",
                                            policy_.window ? policy_.window->text() : "")};
    if (!disk.refusal.empty()) return Skip{Why::kRefused, disk.refusal};
    struct stat status {};
    if (retry(::stat, disk.path.c_str(), &status) != 0)
      return fail(Error::system(errno, disk.path));
    if (!S_ISREG(status.st_mode)) return Skip{Why::kRefused, "is not a regular file"};
    entry.before = FileSize::of(status).blocks;
    const FileIdentity identity = FileIdentity::of(status);
    if (std::find(seen_.begin(), seen_.end(), identity) != seen_.end())
      return Skip{Why::kTwice, "is the same file as a disk above"};
    seen_.push_back(identity);
    remove_backup(disk, last, now, entry);
    ASSIGN_OR_RETURN(MaybeSkip skip, check_guest(disk, runs));
    if (!skip && !options_.now) skip = check_due(*disk.settings, last, now);
    if (!skip) skip = check_changed(*disk.settings, last, status);
    if (skip) return skip;
    return check_file(disk, entry, runs);
  }

  Result<MaybeSkip> check_file(const NightlyDisk& disk, const NightlyEntry& entry, bool runs) {
    RETURN_IF_ERROR(refuse_stopped_live_run(disk.path));
    if (disk.settings->backup) {
      ASSIGN_OR_RETURN(const std::string backup, backup_of(disk.path));
      struct stat status {};
      if (retry(::lstat, backup.c_str(), &status) == 0 && entry.removed_backup != backup)
        return Skip{Why::kBackup,
                    fmt::format("its old disk {} exists: remove that when it is no longer needed, "
                                "or set backup_days",
                                backup)};
    }
    ASSIGN_OR_RETURN(MaybeSkip skip, check_users(disk.path, domains_, runs ? disk.known : nullptr));
    if (skip) return skip;
    if (const auto overlay = qcow2::find_overlay(disk.path, others_);
        overlay && disk.settings->trim != optimize::Trimming::kNone)
      return Skip{Why::kBase, fmt::format("is the backing file of {}, whose content would change "
                                          "(trim = \"none\" keeps it)",
                                          *overlay)};
    return check_header(disk);
  }

  void remove_backup(const NightlyDisk& disk, const LastResult* last, std::time_t now,
                     NightlyEntry& entry) {
    auto removed = remove_old_backup(disk, last, domains_, others_, now, options_.dry_run);
    if (removed)
      entry.removed_backup = std::move(*removed);
    else
      console_.warning(
          fmt::format("{}: the old disk is kept: {}", disk.name(), removed.error().message()));
  }

  // Stores what the next run needs.
  void keep_result(const NightlyDisk& disk, const LastResult* last, const NightlyEntry& entry) {
    if (options_.dry_run || disk.path.empty()) return;
    const bool success = entry.outcome == Outcome::kOptimized || entry.why == Why::kGain;
    const bool tried =
        success || entry.outcome == Outcome::kFailed || entry.outcome == Outcome::kStopped;
    if (!tried && entry.removed_backup.empty()) return;
    LastResult result = last ? *last : LastResult();
    if (!entry.removed_backup.empty()) result.backup.clear();
    if (tried) {
      result.outcome = to_string(entry.outcome);
      result.text = entry.text;
      result.time = std::time(nullptr);
      result.before = entry.before.value_or(0);
      result.after = entry.after.value_or(result.before);
    }
    if (success) keep_success(disk, entry, result);
    if (const auto kept = results_.set(disk.path, std::move(result)); !kept)
      error(kept.error().message());
  }

  static void keep_success(const NightlyDisk& disk, const NightlyEntry& entry, LastResult& result) {
    result.success = result.time;
    result.settings = disk.settings->fingerprint();
    struct stat status {};
    result.file.reset();
    if (retry(::stat, disk.path.c_str(), &status) == 0) result.file = FileState::of(status);
    if (entry.backup.empty()) return;
    const auto backup = backup_of(disk.path);
    if (!backup || retry(::lstat, backup->c_str(), &status) != 0) return;
    result.backup = *backup;
    result.backup_file = FileState::of(status);
    result.backup_time = result.time;
  }

  void measure(const NightlyDisk& disk, const NightlyEntry& entry) {
    if (disk.path.empty()) return;
    MetricsEntry it;
    it.disk = disk.path;
    it.before = entry.before;
    it.after = entry.outcome == Outcome::kOptimized ? entry.after : entry.before;
    it.seconds = entry.seconds;
    it.success = entry.outcome == Outcome::kOptimized || entry.outcome == Outcome::kSkipped;
    it.changed = entry.outcome == Outcome::kOptimized;
    metrics_.record(std::move(it));
  }

  const Policy& policy_;
  const NightlyOptions& options_;
  const Console& console_;
  Metrics& metrics_;
  LastResults results_;
  Cancel cancel_;
  std::vector<KnownDomain> domains_;
  std::vector<std::string> others_;  // the disks of all domains
  std::vector<FileIdentity> seen_;
  NightlyReport report_;
};

}  // namespace

Result<NightlyReport> run_night(const Policy& policy, const NightlyOptions& options,
                                const Console& console, Metrics& metrics) {
  std::vector<std::string> remarks;
  auto results = options.dry_run ? LastResults::peek(policy.state, remarks)
                                 : LastResults::open(policy.state, remarks);
  if (!results) return fail(std::move(results).error());
  for (const std::string& remark : remarks) console.warning(remark);
  return Night(policy, options, console, metrics, std::move(*results)).run();
}

}  // namespace vc::tool
