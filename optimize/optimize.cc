#include "optimize/optimize.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/retry.h"
#include "copy/source/local_source.h"
#include "libvirt/running_domains.h"
#include "nbd/uri.h"
#include "optimize/disk_swap.h"
#include "optimize/early_copy.h"
#include "optimize/early_room.h"
#include "optimize/parallel_check.h"
#include "optimize/plan_lines.h"
#include "optimize/shown_names.h"
#include "optimize/unchanged.h"
#include "qcow2/build/create_image.h"
#include "qcow2/check/checker.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/read/overlay_search.h"
#include "qcow2/repair/repair.h"

namespace vc::optimize {

namespace {

using Clock = std::chrono::steady_clock;

// Of the overlay: subclusters of 4 KiB, the block of most filesystems.
constexpr unsigned kOverlayClusterBits = 17;

// Of a copy that starts before the guest is trimmed, bytes.
constexpr uint64_t kLargestCluster = 2 << 20;
constexpr uint64_t kWorthAnEarlyCopy = 64 << 20;

// A file that we have made, and that goes when the object does; no other one that has got its name.
class Temporary {
 public:
  // `file` is open for as long as the object lives.
  Temporary(std::string path, int file) : path_(std::move(path)), file_(FileIdentity::of(file)) {}
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary() {
    if (path_.empty()) return;
    const auto folder = Directory::open(Directory::parent_of(path_));
    const std::string name = Directory::name_of(path_);
    if (folder && folder->holds(name, file_)) (void)folder->remove(name);
  }
  void keep() { path_.clear(); }

 private:
  std::string path_;
  const std::optional<FileIdentity> file_;
};

// What is made meanwhile is nobody else's to read: it gets its owner and mode when it is whole.
class PrivateFiles {
 public:
  PrivateFiles() : old_(::umask(077)) {}
  PrivateFiles(const PrivateFiles&) = delete;
  PrivateFiles& operator=(const PrivateFiles&) = delete;
  ~PrivateFiles() { ::umask(old_); }

 private:
  const mode_t old_;
};

double mebibytes(uint64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

// FOLDER/.NAME.ending
std::string hidden(const std::string& path, const char* ending) {
  const size_t slash = path.rfind('/');
  const size_t name = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(0, name) + "." + path.substr(name) + ending;
}

class Run {
 public:
  Run(const OptimizeOptions& options, appliance::Observer& observer, Progress& progress,
      const Cancel& cancel)
      : options_(options), observer_(observer), progress_(progress), cancel_(cancel) {}

  Result<OptimizeReport> run() {
    RETURN_IF_ERROR(look());
    const std::string trimmed_disk = overlay_name();
    RETURN_IF_ERROR(clear_overlay(trimmed_disk));
    if (auto prepared = prepare_trimming(); !prepared) {
      // What is damaged may be the reason.
      if (prepared.error().kind() != Error::Kind::kCancelled) RETURN_IF_ERROR(check_source());
      return fail(std::move(prepared).error());
    }
    std::optional<Temporary> overlay;
    std::string source = disk_;
    if (report_.plan.boots) {
      ASSIGN_OR_RETURN(source, check_and_trim(trimmed_disk, overlay));
    } else {
      RETURN_IF_ERROR(check_source());
    }
    RETURN_IF_ERROR(foretell(source));
    if (report_.dry_run || report_.compact) {
      end_step();
      report_.result = options_.output.empty() ? disk_ : options_.output;
      report_.elapsed = Clock::now() - start_;
      return std::move(report_);
    }
    const std::string destination = destination_name();
    auto copied = copy(source, destination);
    if (!copied) {
      // One with a backing file has its name before it is verified; that of an output may be of
      // something else, which was there.
      if (swap_) retry(::unlink, destination.c_str());
      return fail(std::move(copied).error());
    }
    // From here on it is there, under a name.
    Temporary fresh(destination, report_.copied.file ? report_.copied.file->get() : -1);
    overlay.reset();
    // Somebody who takes no locks, or does not ask libvirt.
    RETURN_IF_ERROR(unchanged_->check());
    RETURN_IF_ERROR(check_result(destination));
    if (swap_) RETURN_IF_ERROR(prepare_swap());
    // Amid a swap that name may be the old disk's: it knows.
    fresh.keep();
    if (swap_) RETURN_IF_ERROR(put_in_place());
    end_step();
    report_.elapsed = Clock::now() - start_;
    return std::move(report_);
  }

 private:
  void begin(const std::string& name, const std::string& line) {
    end_step();
    report_.steps.push_back({name, {}});
    step_start_ = Clock::now();
    observer_.step(line);
  }
  void end_step() {
    if (!report_.steps.empty()) report_.steps.back().elapsed = Clock::now() - step_start_;
  }

  bool is_trimmed() const { return options_.trimming_by != Trimming::kNone; }
  // What a guest cannot be trimmed for; an error unless it is then copied as it is.
  Result<void> give_up_trimming(const Error& error) {
    if (!options_.keep_going || error.kind() == Error::Kind::kCancelled) return fail(error);
    observer_.warning(fmt::format("{}: the guest is not trimmed: {}", disk_, error.message()));
    return {};
  }

  // Under the locks of `chain_`.
  Result<void> prepare_trimming() {
    report_.plan.trimming = options_.trimming_by;
    if (!is_trimmed()) return {};
    RETURN_IF_ERROR(look_for_overlays());
    RETURN_IF_ERROR(plan_trimming());
    return look_for_room();
  }

  Result<void> plan_trimming() {
    if (options_.trimming_by != Trimming::kAppliance)
      begin("free space", "Reading what the filesystems do not use");
    copy::LocalSource::Options how;
    how.format = report_.format;
    how.trust = options_.copy.trust;
    ASSIGN_OR_RETURN(const auto source, copy::LocalSource::open(disk_, how));
    auto plan = plan_free_space(*source, options_.trimming_by, options_.trimming);
    if (!plan) {
      report_.plan.failed = plan.error().message();
      return give_up_trimming(plan.error());
    }
    report_.plan = std::move(*plan);
    tell_plan(report_.plan, disk_, observer_);
    return {};
  }

  // Returns what is to be copied: the overlay, or the disk if it cannot be trimmed.  The appliance
  // boots while the image is checked, and while what it does not change is copied.
  Result<std::string> check_and_trim(const std::string& trimmed_disk,
                                     std::optional<Temporary>& overlay) {
    if (report_.format != qcow2::Format::kRaw) observer_.step("Checking the image");
    check_.emplace([this] { return check_image(disk_, report_.format, report_.before, cancel_); },
                   cancel_);
    copy_early();
    auto made = make_overlay(trimmed_disk);
    std::string source = disk_;
    if (made) {
      overlay.emplace(trimmed_disk, overlay_.get());
      // By its descriptor: whoever may write to the folder can give its name to another image.
      source = path_of_descriptor(overlay_.get(), ::getpid());
      made = trim(trimmed_disk, source, check_->work_cancel());
    }
    RETURN_IF_ERROR(check_->wait());
    if (report_.format != qcow2::Format::kRaw)
      report_.steps.insert(report_.steps.end() - 1, {"check", check_->elapsed()});
    // The reason why the appliance was stopped.
    if (early_copy_)
      if (auto error = early_copy_->failure()) return fail(std::move(*error));
    if (!overlay) return fail(std::move(made).error());
    if (!made) {
      RETURN_IF_ERROR(give_up_trimming(made.error()));
      source = disk_;
    }
    return source;
  }

  Result<void> look() {
    begin("open", "Opening " + options_.disk);
    const std::unique_ptr<char, void (*)(void*)> real(::realpath(options_.disk.c_str(), nullptr),
                                                      std::free);
    if (!real) return fail(Error::system(errno, options_.disk));
    disk_ = real.get();
    RETURN_IF_ERROR(measure(disk_, report_.before));
    if (!options_.output.empty()) RETURN_IF_ERROR(look_at_output());
    RETURN_IF_ERROR(ask_libvirt());
    if (options_.repair && !options_.dry_run) RETURN_IF_ERROR(repair_source());
    if (is_trimmed() && options_.output.empty()) RETURN_IF_ERROR(look_for_readers());
    qcow2::OpenOptions how;
    how.format = options_.format;
    how.trust = options_.copy.trust;
    // By the name that was given: what the image calls its backing file is relative to it.
    ASSIGN_OR_RETURN(auto chain, qcow2::Chain::open(options_.disk, how));
    chain_ = std::move(chain);
    RETURN_IF_ERROR(look_behind_links());
    report_.format = chain_->format();
    report_.result_format = options_.output_format.value_or(report_.format);
    report_.virtual_size = chain_->disk().size();
    if (options_.output.empty()) {
      if (!options_.copy.image.data_file.empty())
        return fail(Error::invalid(
            "data_file: goes with --output: what runs the disk may not read a file that is new"));
      RETURN_IF_ERROR(plan_swap());
    }
    if (const auto& image = chain_->image()) {
      const size_t snapshots = image->snapshots().size();
      if (snapshots > 0 && !options_.drop_snapshots)
        return fail(Error::invalid(fmt::format(
            "{}: has {} internal snapshot{}, which would be lost: --drop-snapshots does without, "
            "virt-compact snapshot --export keeps {}",
            disk_, snapshots, snapshots == 1 ? "" : "s", snapshots == 1 ? "it" : "them")));
      if (!image->header().backing_file.empty() && options_.copy.image.backing_file.empty())
        observer_.warning(
            fmt::format("{}: what it has in {} goes into the result, which needs it "
                        "no more",
                        disk_, image->header().backing_file));
      RETURN_IF_ERROR(tell_what_is_left_behind(*image));
    }
    // Options that contradict each other, or what the disk is, before anything takes time.
    return copy::check(how_to_copy(disk_, destination_name()), cancel_);
  }

  // A dry run leaves alone what a stopped one has left.
  Result<void> plan_swap() {
    struct stat status {};
    const std::string left = hidden(disk_, ".fresh");
    if (options_.dry_run && ::lstat(left.c_str(), &status) == 0) {
      observer_.warning(left + ": an earlier run was stopped: the next one that writes clears up");
      return {};
    }
    ASSIGN_OR_RETURN(auto swap, DiskSwap::plan(options_.disk, options_.backup_suffix));
    swap_.emplace(std::move(swap));
    tell_remarks();
    if (swap_->other_names() > 0)
      observer_.warning(fmt::format("{}: has {} more name{}, which will keep the old disk", disk_,
                                    swap_->other_names(), swap_->other_names() == 1 ? "" : "s"));
    return {};
  }

  std::string destination_name() const {
    if (!options_.output.empty()) return options_.output;
    return swap_ ? swap_->fresh() : hidden(disk_, ".fresh");
  }

  std::string overlay_name() const {
    const std::string name = hidden(options_.output.empty() ? disk_ : options_.output, ".overlay");
    if (options_.overlay_folder.empty()) return name;
    return options_.overlay_folder + "/" + name.substr(name.rfind('/') + 1);
  }

  // Whether the result is the disk as it was, but for its size and order.
  bool is_same_disk() const {
    if (!options_.output.empty()) return false;
    const auto& image = chain_->image();
    return !image || (image->snapshots().empty() && !image->header().has_data_file() &&
                      image->header().backing_file == options_.copy.image.backing_file);
  }

  Result<void> foretell(const std::string& source) {
    const bool may_leave_it = options_.limit && is_same_disk();
    report_.dry_run = options_.dry_run;
    if (!options_.dry_run && !may_leave_it) return {};
    begin("measure", "Estimating what a fresh image would take");
    ASSIGN_OR_RETURN(report_.gain, foretell_gain(how_to_copy(source, destination_name()), *chain_,
                                                 report_.before.on_disk, report_.before.length,
                                                 progress_, cancel_));
    RETURN_IF_ERROR(unchanged_->check());
    report_.compact = may_leave_it && !report_.gain->is_worth(*options_.limit);
    if (report_.compact) report_.after = report_.before;
    return {};
  }

  // What it leads to is overwritten otherwise, or removed when something fails.
  Result<void> look_at_output() {
    const std::string& output = options_.output;
    ASSIGN_OR_RETURN(const bool uri, nbd::is_nbd_uri(output));
    if (uri || output == "-" || output == "null:")
      return fail(Error::invalid(output + ": the result is a file: use virt-compact copy"));
    struct stat status {};
    if (retry(::stat, output.c_str(), &status) != 0) return {};
    if (!S_ISREG(status.st_mode))
      return fail(Error::invalid(output + ": is no regular file: use virt-compact copy"));
    if (!options_.overwrite)
      return fail(Error::invalid(output + ": exists already: --force replaces it"));
    return {};
  }

  // An image names its backing file from the folder that it was found in: through a symbolic link
  // that may be another one than the file's own.
  Result<void> look_behind_links() {
    ASSIGN_OR_RETURN(unchanged_, Unchanged::since_now(*chain_));
    if (options_.disk == disk_) return {};
    qcow2::OpenOptions how;
    how.format = options_.format;
    how.trust = options_.copy.trust;
    const auto direct = qcow2::Chain::open(disk_, how);
    if (direct) {
      ASSIGN_OR_RETURN(const auto files, Unchanged::since_now(*direct));
      if (files.same_files(*unchanged_)) return {};
    }
    return fail(Error::invalid(fmt::format(
        "{}: is a link to {}, which by that name has other files behind it{}: give the name that "
        "the guest is run with, without links, or make the backing file's name absolute",
        options_.disk, disk_,
        direct ? std::string() : fmt::format(" ({})", direct.error().message()))));
  }

  // A machine that runs on an overlay does not write to the disk behind it, but lets nobody else.
  Result<void> look_for_readers() {
    ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(disk_));
    return file->lock(ImageClaim::writing(), "shut down what uses it");
  }

  // What an overlay lacks it reads from the disk; a guest's filesystem that was trimmed, and whose
  // journal was replayed, is another one.
  Result<void> look_for_overlays() {
    if (!swap_) return {};
    const auto overlay = qcow2::find_overlay(options_.disk, options_.others);
    if (!overlay) return {};
    return fail(Error::invalid(fmt::format(
        "{}: is the backing file of {}, which would find another disk below it: use --trim=none, "
        "which changes nothing that it reads, or flatten that one first (virt-compact flatten)",
        disk_, *overlay)));
  }

  // What no copy has.
  Result<void> tell_what_is_left_behind(const qcow2::Image& image) {
    const auto bitmaps = qcow2::read_bitmap_directory(*chain_->storage(), image.header());
    if (bitmaps && !bitmaps->bitmaps.empty())
      observer_.warning(fmt::format(
          "{}: its {} persistent bitmap{} not in the result: the next incremental backup must be a "
          "full one",
          disk_, bitmaps->bitmaps.size(), bitmaps->bitmaps.size() == 1 ? " is" : "s are"));
    if (image.header().has_data_file() && swap_)
      observer_.warning(
          fmt::format("{}: what is in its data file goes into the result; that file stays as it "
                      "is, and belongs "
                      "to the old disk",
                      disk_));
    return {};
  }

  // Where locks do not tell: the disk is behind that of a machine, or storage is shared without
  // them.
  Result<void> ask_libvirt() {
    ASSIGN_OR_RETURN(const auto remarks, libvirt::check_unused(disk_));
    for (const std::string& remark : remarks) observer_.warning(remark);
    return {};
  }

  // Before the chain is opened, whose locks let nobody write.
  Result<void> repair_source() {
    ASSIGN_OR_RETURN(const auto file, FileStorage::open_writable(disk_));
    RETURN_IF_ERROR(file->lock(ImageClaim::writing(), "shut down what uses it"));
    auto format = options_.format;
    if (!format) {
      ASSIGN_OR_RETURN(format, qcow2::probe_format(*file));
    }
    if (*format != qcow2::Format::kQcow2) return {};
    begin("repair", "Checking whether the image needs a repair");
    {
      ASSIGN_OR_RETURN(auto checker, qcow2::Checker::open(*file, {}));
      FirstFinding findings(cancel_, checker.header().geometry().cluster_size());
      ASSIGN_OR_RETURN(const auto sums, checker.run(findings));
      // Leaks are left behind in any case.
      if (sums.corruptions + sums.check_errors == 0) return {};
    }
    const std::string undo = disk_ + ".undo";
    FirstFinding findings(cancel_, 1);
    ASSIGN_OR_RETURN(
        const auto done,
        qcow2::repair(file, {qcow2::RepairOptions::What::kAll, {}, false, undo, false}, findings));
    observer_.warning(fmt::format(
        "{}: {} corruptions and {} leaks are mended, and can be taken back: virt-compact check "
        "--apply-undo {} {}",
        disk_, done.corruptions_fixed, done.leaks_fixed, undo, disk_));
    return {};
  }

  void tell_remarks() {
    for (; told_ < swap_->remarks().size(); ++told_) observer_.warning(swap_->remarks()[told_]);
  }

  Result<void> check_source() {
    if (report_.format == qcow2::Format::kRaw) return {};
    begin("check", "Checking the image");
    return check_image(disk_, report_.format, report_.before, cancel_);
  }

  // The copy checks it again, when it is known what was trimmed.
  Result<void> look_for_room() {
    const copy::CopyOptions how = how_to_copy(disk_, destination_name());
    ASSIGN_OR_RETURN(const EarlyRoom room, find_early_room(how, report_.virtual_size,
                                                           report_.plan.boots, progress_, cancel_));
    fits_untrimmed_ = room.fits;
    if (room.fits) return {};
    const std::string folder = Directory::parent_of(how.destination);
    const auto& drop = options_.trimming.drop;
    const bool drops = report_.plan.boots && (drop.pagefile || drop.swapfile || drop.hiberfile ||
                                              drop.shadows || drop.swap);
    if (!room.least || *room.least <= room.free || drops || is_left_if(*room.least)) {
      observer_.warning(fmt::format(
          "{}: the result fits only if trimming frees enough: untrimmed it takes about {:.1f} MiB, "
          "and the filesystem of {} has {:.1f} MiB free",
          disk_, mebibytes(room.untrimmed), folder, mebibytes(room.free)));
      return {};
    }
    const std::string text = fmt::format(
        "{}: there is no space for the result: without all that the guest leaves free it takes "
        "about {:.1f} MiB, and the filesystem of {} has {:.1f} MiB free: make space there, or give "
        "a file elsewhere (--output)",
        disk_, mebibytes(*room.least), folder, mebibytes(room.free));
    if (!options_.dry_run) return fail(Error::protocol(ENOSPC, text));
    observer_.warning(text);
    return {};
  }

  // Whether a result of so many bytes is too little a gain for the disk to be written afresh.
  bool is_left_if(uint64_t bytes) const {
    if (!options_.limit || !is_same_disk()) return false;
    Gain gain;
    gain.before = report_.before.on_disk;
    gain.expected = bytes;
    return !gain.is_worth(*options_.limit);
  }

  // What a killed run left.
  Result<void> clear_overlay(const std::string& path) {
    ASSIGN_OR_RETURN(const Directory folder, Directory::open(Directory::parent_of(path)));
    const std::string name = Directory::name_of(path);
    if (!folder.status(name)) return {};
    ASSIGN_OR_RETURN(const auto left, FileStorage::open_readonly_in(folder, name));
    RETURN_IF_ERROR(left->lock(ImageClaim::writing(), "another run is at work"));
    const auto header = qcow2::Header::read(*left, qcow2::Header::Purpose::kTell);
    if (!header || header->cluster_bits != kOverlayClusterBits || !header->extended_l2() ||
        header->backing_file != disk_ || !folder.holds(name, left->identity()))
      return fail(Error::invalid(
          path + ": is in the way, and not what a run of this command would have left: move it"));
    RETURN_IF_ERROR(folder.remove(name));
    observer_.warning(fmt::format("{}: an earlier run was stopped: its overlay is removed", path));
    return {};
  }

  Result<void> make_overlay(const std::string& path) {
    begin("trim", "Making an overlay to trim the guest in");
    qcow2::BuildOptions build;
    build.size = report_.virtual_size;
    build.cluster_bits = kOverlayClusterBits;
    build.extended_l2 = true;
    build.backing_file = disk_;
    build.backing_format = qcow2::to_string(report_.format);
    const PrivateFiles mine;
    ASSIGN_OR_RETURN(overlay_, qcow2::create_image(path, build));
    return {};
  }

  // `overlay`: the name of the overlay that can be opened as `path`.
  Result<void> trim(const std::string& overlay, const std::string& path, const Cancel& cancel) {
    appliance::TrimOptions trimming = options_.trimming;
    trimming.known = report_.plan.known_devices();
    trimming.disks = {
        {path, {}, qcow2::Format::kQcow2, overlay, options_.copy.trust.names.for_own_image()}};
    trimming.overlay = true;
    ASSIGN_OR_RETURN(report_.trimmed, appliance::trim(trimming, observer_, cancel));
    if (const std::string why = report_.trimmed->why_nothing(); !why.empty())
      observer_.warning(fmt::format(
          "{}: nothing was trimmed, and all that the guest has ever written is copied: {}", disk_,
          why));
    for (const auto& space : report_.trimmed->spaces) {
      if (space.outcome != appliance::TrimmedSpace::Outcome::kFailed) continue;
      if (space.touched)
        return fail(Error::protocol(
            EIO, fmt::format("{}: trimming it broke off: {}: --ignore {} leaves it alone",
                             space.device, space.why, space.device)));
      observer_.warning(fmt::format("{}: not trimmed: {}", space.device, space.why));
    }
    return {};
  }

  copy::CopyOptions how_to_copy(const std::string& source, const std::string& destination) const {
    copy::CopyOptions how = options_.copy;
    how.source = source;
    if (source != disk_) how.trust.names = how.trust.names.for_own_image();
    how.source_format = source == disk_ ? report_.format : qcow2::Format::kQcow2;
    how.destination = destination;
    how.format = report_.result_format;
    how.overwrite = options_.output.empty() ? options_.dry_run : options_.overwrite;
    how.verify = true;
    how.unused = report_.plan.unused;
    how.keep_compression = options_.keep_compression;
    // The overlay's are of no interest.
    if (const auto& image = chain_->image()) {
      const qcow2::Header& header = image->header();
      auto& wanted = how.image;
      if (!wanted.cluster_bits) wanted.cluster_bits = header.cluster_bits;
      const bool modern = wanted.version.value_or(3) >= 3;
      if (modern && options_.keep_compression && !wanted.compression_type)
        wanted.compression_type = header.compression_type;
      if (modern && !wanted.refcount_order) wanted.refcount_order = header.refcount_order;
      if (modern && !wanted.lazy_refcounts)
        wanted.lazy_refcounts =
            (header.compatible_features & qcow2::compatible::kLazyRefcounts) != 0;
      if (modern && !wanted.extended_l2)
        wanted.extended_l2 = header.extended_l2() &&
                             *wanted.cluster_bits >= qcow2::Geometry::kMinClusterBitsExtendedL2;
    }
    return how;
  }

  // Starts to copy what the appliance does not change.  In the place of the disk nothing is written
  // before it is known what the guest does not use.
  void copy_early() {
    if (swap_ || report_.plan.unchanged_until == 0 || options_.dry_run || !fits_untrimmed_) return;
    const uint64_t unit = std::max(kLargestCluster, options_.copy.sparse_size);
    const uint64_t end = report_.plan.unchanged_until / unit * unit;
    if (end < kWorthAnEarlyCopy) return;
    observer_.step("Copying what the appliance does not change");
    early_copy_.emplace(how_to_copy(disk_, destination_name()), end, progress_,
                        check_->work_cancel());
  }

  // Returns whether the early copy has become the whole one.
  Result<bool> finish_early_copy(const copy::CopyOptions& how) {
    ASSIGN_OR_RETURN(auto rest, copy::LocalSource::open(
                                    how.source, {how.source_format, "", false, how.trust, false}));
    if (how.source != disk_) {
      ASSIGN_OR_RETURN(const bool is_unchanged, early_copy_->is_unchanged(*rest));
      if (!is_unchanged) return false;
    }
    ASSIGN_OR_RETURN(report_.copied, early_copy_->finish(std::move(rest)));
    report_.steps.insert(report_.steps.end() - 1, {"early copy", early_copy_->elapsed()});
    return true;
  }

  Result<void> copy(const std::string& source, const std::string& destination) {
    begin("copy", "Copying what is in use, and reading it again");
    const copy::CopyOptions how = how_to_copy(source, destination);
    if (early_copy_) {
      ASSIGN_OR_RETURN(const bool is_done, finish_early_copy(how));
      early_copy_.reset();
      if (is_done) return {};
    }
    std::optional<PrivateFiles> mine;
    if (swap_) mine.emplace();
    auto copied = copy::copy(how, progress_, cancel_);
    mine.reset();
    if (!copied) return fail(std::move(copied).error());
    report_.copied = std::move(*copied);
    return {};
  }

  Result<void> check_result(const std::string& path) {
    if (report_.result_format == qcow2::Format::kQcow2)
      begin("check result", "Checking the result");
    RETURN_IF_ERROR(check_image(path, report_.result_format, report_.after, cancel_));
    report_.result = path;
    return {};
  }

  Result<void> prepare_swap() {
    // From here on it is not stopped any more: what is left takes no time.
    if (cancel_.requested()) return fail(Error::cancelled());
    begin("swap", swap_->backup().empty()
                      ? "Putting it in the place of the disk"
                      : fmt::format("Putting it in the place of the disk, which becomes {}",
                                    swap_->backup()));
    if (!report_.copied.file)
      return fail(Error::invalid(swap_->fresh() + ": is no file that could be swapped"));
    RETURN_IF_ERROR(swap_->carry_over(std::move(*report_.copied.file)));
    tell_remarks();
    return unchanged_->check();
  }

  Result<void> put_in_place() {
    RETURN_IF_ERROR(swap_->run());
    report_.result = swap_->disk();
    report_.backup = swap_->backup();
    return {};
  }

  const OptimizeOptions& options_;
  appliance::Observer& observer_;
  Progress& progress_;
  const Cancel& cancel_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point step_start_ = start_;
  std::string disk_;                    // without symbolic links
  std::optional<qcow2::Chain> chain_;   // keeps its locks
  std::optional<Unchanged> unchanged_;  // its files
  std::optional<DiskSwap> swap_;
  Descriptor overlay_;  // the file, whatever has its name
  size_t told_ = 0;     // of its remarks
  bool fits_untrimmed_ = false;
  std::optional<ParallelCheck> check_;  // outlives the copy that stops when it fails
  std::optional<EarlyCopy> early_copy_;
  OptimizeReport report_;
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
