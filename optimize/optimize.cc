#include "optimize/optimize.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <memory>
#include <utility>

#include "base/retry.h"
#include "base/rounding.h"
#include "copy/source/local_source.h"
#include "optimize/early_copy.h"
#include "optimize/early_space.h"
#include "optimize/own_files.h"
#include "optimize/parallel_check.h"
#include "optimize/plan_lines.h"
#include "optimize/shown_names.h"
#include "optimize/source_disk.h"
#include "optimize/step_log.h"
#include "optimize/trim_overlay.h"

namespace vc::optimize {

namespace {

using Clock = std::chrono::steady_clock;

// Limits of a copy that starts before the guest is trimmed, bytes.
constexpr uint64_t kLargestCluster = 2 << 20;
constexpr uint64_t kWorthAnEarlyCopy = 64 << 20;

double mebibytes(uint64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

class Run {
 public:
  Run(const OptimizeOptions& options, appliance::Observer& observer, Progress& progress,
      const Cancel& cancel)
      : options_(options),
        observer_(observer),
        progress_(progress),
        cancel_(cancel),
        disk_(options, report_, steps_, observer, cancel) {}

  Result<OptimizeReport> run() {
    RETURN_IF_ERROR(disk_.open());
    TrimOverlay overlay(options_, disk_, report_, steps_, observer_);
    RETURN_IF_ERROR(overlay.clear());
    if (auto prepared = prepare_trimming(); !prepared) {
      // Damage to the image may be the cause: prefer the error of the check.
      if (prepared.error().kind() != Error::Kind::kCancelled) RETURN_IF_ERROR(check_source());
      return fail(std::move(prepared).error());
    }
    std::string source = disk_.path();
    if (report_.plan.boots) {
      ASSIGN_OR_RETURN(source, check_and_trim(overlay));
    } else {
      RETURN_IF_ERROR(check_source());
    }
    RETURN_IF_ERROR(predict(source));
    if (report_.dry_run || report_.compact) {
      steps_.end();
      report_.result = options_.output.empty() ? disk_.path() : options_.output;
      report_.elapsed = Clock::now() - start_;
      return std::move(report_);
    }
    const std::string destination = disk_.destination_name();
    auto copied = copy(source, destination);
    if (!copied) {
      // A result with a backing file gets its name before verification. An output is kept: its name
      // may belong to a file that existed before.
      if (disk_.swap()) retry(::unlink, destination.c_str());
      return fail(std::move(copied).error());
    }
    // Owns the result, which has a name now.
    TemporaryFile fresh(destination, report_.copied.file ? report_.copied.file->get() : -1);
    overlay.remove();
    // Finds changes by programs that neither take locks nor are known to libvirt.
    RETURN_IF_ERROR(disk_.check_unchanged());
    RETURN_IF_ERROR(check_result(destination));
    if (disk_.swap()) RETURN_IF_ERROR(prepare_swap());
    // During the swap, the name may belong to the old disk. DiskSwap removes the file if necessary.
    fresh.keep();
    if (disk_.swap()) RETURN_IF_ERROR(put_in_place());
    steps_.end();
    report_.elapsed = Clock::now() - start_;
    return std::move(report_);
  }

 private:
  bool is_trimmed() const { return options_.trimming_by != Trimming::kNone; }
  // Warns that the guest is not trimmed. Returns an error unless the user wants the disk to be
  // copied nevertheless.
  Result<void> give_up_trimming(const Error& error) {
    if (!options_.keep_going || error.kind() == Error::Kind::kCancelled) return fail(error);
    observer_.warning(
        fmt::format("{}: the guest is not trimmed: {}", disk_.path(), error.message()));
    return {};
  }

  // Needs the locks of the disk.
  Result<void> prepare_trimming() {
    report_.plan.trimming = options_.trimming_by;
    if (!is_trimmed()) return {};
    RETURN_IF_ERROR(disk_.check_overlays());
    RETURN_IF_ERROR(plan_trimming());
    return check_space();
  }

  Result<void> plan_trimming() {
    if (options_.trimming_by != Trimming::kAppliance)
      steps_.begin("free space", "Reading the free space of the filesystems");
    copy::LocalSource::Options how;
    how.format = report_.format;
    how.trust = options_.copy.trust;
    ASSIGN_OR_RETURN(const auto source, copy::LocalSource::open(disk_.path(), how));
    auto plan = plan_free_space(*source, options_.trimming_by, options_.trimming, cancel_);
    if (!plan) {
      report_.plan.failed = plan.error().message();
      return give_up_trimming(plan.error());
    }
    report_.plan = std::move(*plan);
    tell_plan(report_.plan, disk_.path(), observer_);
    return {};
  }

  // Returns the file to copy: the overlay, or the disk if it cannot be trimmed. While the appliance
  // boots, the image is checked, and the data that the appliance does not change is copied.
  Result<std::string> check_and_trim(TrimOverlay& overlay) {
    if (report_.format != qcow2::Format::kRaw) observer_.step("Checking the image");
    check_.emplace(
        [this] { return check_image(disk_.path(), report_.format, report_.before, cancel_); },
        cancel_);
    copy_early();
    auto made = overlay.make();
    std::string source = disk_.path();
    if (made) {
      source = overlay.name();
      made = overlay.trim(check_->work_cancel());
    }
    RETURN_IF_ERROR(check_->wait());
    if (report_.format != qcow2::Format::kRaw)
      report_.steps.insert(report_.steps.end() - 1, {"check", check_->elapsed()});
    // A failed copy stops the appliance, so its error is the cause.
    if (early_copy_)
      if (auto error = early_copy_->failure()) return fail(std::move(*error));
    if (!overlay.is_made()) return fail(std::move(made).error());
    if (!made) {
      RETURN_IF_ERROR(give_up_trimming(made.error()));
      source = disk_.path();
    }
    return source;
  }

  Result<void> predict(const std::string& source) {
    const bool may_leave_it = options_.limit && disk_.is_same_disk();
    report_.dry_run = options_.dry_run;
    if (!options_.dry_run && !may_leave_it) return {};
    steps_.begin("measure", "Estimating the size of a fresh image");
    ASSIGN_OR_RETURN(
        report_.gain,
        predict_gain(disk_.copy_options(source, disk_.destination_name()), disk_.chain(),
                     report_.before.file.blocks, report_.before.file.length, progress_, cancel_));
    RETURN_IF_ERROR(disk_.check_unchanged());
    report_.compact = may_leave_it && !report_.gain->is_worth(*options_.limit);
    if (report_.compact) report_.after = report_.before;
    return {};
  }

  Result<void> check_source() {
    if (report_.format == qcow2::Format::kRaw) return {};
    steps_.begin("check", "Checking the image");
    return check_image(disk_.path(), report_.format, report_.before, cancel_);
  }

  // Returns an error if the result cannot fit. The copy checks again when the trimmed size is
  // known.
  Result<void> check_space() {
    const copy::CopyOptions how = disk_.copy_options(disk_.path(), disk_.destination_name());
    ASSIGN_OR_RETURN(
        const EarlySpace space,
        find_early_space(how, report_.virtual_size, report_.plan.boots, progress_, cancel_));
    fits_untrimmed_ = space.fits;
    if (space.fits) return {};
    const std::string folder = Directory::parent_of(how.destination);
    const auto& drop = options_.trimming.drop;
    const bool drops = report_.plan.boots && (drop.pagefile || drop.swapfile || drop.hiberfile ||
                                              drop.shadows || drop.swap);
    if (!space.least || *space.least <= space.free || drops || is_left_if(*space.least)) {
      observer_.warning(
          fmt::format("{}: the result fits only if trimming frees enough: without trimming, it "
                      "takes about {:.1f} MiB, and the filesystem of {} has {:.1f} MiB free",
                      disk_.path(), mebibytes(space.untrimmed), folder, mebibytes(space.free)));
      return {};
    }
    const std::string text = fmt::format(
        "{}: there is not enough space for the result: without the guest's free space, it takes "
        "about {:.1f} MiB, and the filesystem of {} has {:.1f} MiB free: free space there, "
        "write the result to another filesystem (--output), or change the file itself "
        "(--in-place)",
        disk_.path(), mebibytes(*space.least), folder, mebibytes(space.free));
    if (!options_.dry_run) return fail(Error::protocol(ENOSPC, text));
    observer_.warning(text);
    return {};
  }

  // Returns true if a result of `bytes` gains too little to replace the disk.
  bool is_left_if(uint64_t bytes) const {
    if (!options_.limit || !disk_.is_same_disk()) return false;
    Gain gain;
    gain.before = report_.before.file.blocks;
    gain.expected = bytes;
    return !gain.is_worth(*options_.limit);
  }

  // Starts to copy the data that the appliance does not change. Only for an output: nothing is
  // written beside the disk before its unused data is known.
  void copy_early() {
    if (disk_.swap() || report_.plan.unchanged_until == 0 || options_.dry_run || !fits_untrimmed_)
      return;
    const uint64_t unit = std::max(kLargestCluster, options_.copy.sparse_size);
    const uint64_t end = round_down(report_.plan.unchanged_until, unit);
    if (end < kWorthAnEarlyCopy) return;
    observer_.step("Copying what the appliance does not change");
    early_copy_.emplace(disk_.copy_options(disk_.path(), disk_.destination_name()), end, progress_,
                        check_->work_cancel());
  }

  // Returns true if the early copy has been completed to a whole copy.
  Result<bool> finish_early_copy(const copy::CopyOptions& how) {
    ASSIGN_OR_RETURN(auto rest, copy::LocalSource::open(
                                    how.source, {how.source_format, "", false, how.trust, false}));
    if (how.source != disk_.path()) {
      ASSIGN_OR_RETURN(const bool is_unchanged, early_copy_->is_unchanged(*rest));
      if (!is_unchanged) return false;
    }
    ASSIGN_OR_RETURN(report_.copied, early_copy_->finish(std::move(rest)));
    report_.steps.insert(report_.steps.end() - 1, {"early copy", early_copy_->elapsed()});
    return true;
  }

  Result<void> copy(const std::string& source, const std::string& destination) {
    steps_.begin("copy", "Copying the data in use, and verifying the copy");
    const copy::CopyOptions how = disk_.copy_options(source, destination);
    if (early_copy_) {
      ASSIGN_OR_RETURN(const bool is_done, finish_early_copy(how));
      early_copy_.reset();
      if (is_done) return {};
    }
    std::optional<PrivateFiles> mine;
    if (disk_.swap()) mine.emplace();
    auto copied = copy::copy(how, progress_, cancel_);
    mine.reset();
    if (!copied) return fail(std::move(copied).error());
    report_.copied = std::move(*copied);
    return {};
  }

  Result<void> check_result(const std::string& path) {
    if (report_.result_format == qcow2::Format::kQcow2)
      steps_.begin("check result", "Checking the result");
    RETURN_IF_ERROR(check_image(path, report_.result_format, report_.after, cancel_));
    report_.result = path;
    return {};
  }

  Result<void> prepare_swap() {
    // A signal is ignored from here on: the rest takes almost no time.
    if (cancel_.requested()) return fail(Error::cancelled());
    steps_.begin("swap",
                 disk_.swap()->backup().empty()
                     ? "Replacing the disk"
                     : fmt::format("Replacing the disk, which becomes {}", disk_.swap()->backup()));
    if (!report_.copied.file)
      return fail(Error::invalid(disk_.swap()->fresh() + ": is not a file that can be swapped"));
    RETURN_IF_ERROR(disk_.swap()->carry_over(std::move(*report_.copied.file)));
    disk_.tell_remarks();
    return disk_.check_unchanged();
  }

  Result<void> put_in_place() {
    RETURN_IF_ERROR(disk_.swap()->run());
    report_.result = disk_.swap()->disk();
    report_.backup = disk_.swap()->backup();
    return {};
  }

  const OptimizeOptions& options_;
  appliance::Observer& observer_;
  Progress& progress_;
  const Cancel& cancel_;
  const Clock::time_point start_ = Clock::now();
  OptimizeReport report_;
  StepLog steps_{report_, observer_};
  SourceDisk disk_;
  bool fits_untrimmed_ = false;
  std::optional<ParallelCheck> check_;  // must outlive early_copy_, which can stop it
  std::optional<EarlyCopy> early_copy_;
};

}  // namespace

Result<OptimizeReport> optimize(const OptimizeOptions& options, appliance::Observer& observer,
                                Progress& progress, const Cancel& cancel) {
  const ShownNames shown(options.disk);
  ShowingObserver showing(observer, shown);
  auto report = Run(options, showing, progress, cancel).run();
  if (!report) return fail(shown(report.error()));
  report->result = shown(report->result);
  report->backup = shown(report->backup);
  return report;
}

}  // namespace vc::optimize
