#include "copy/copy_job.h"

#include <algorithm>
#include <filesystem>

#include "copy/clone_plan.h"
#include "copy/encryption_plan.h"
#include "copy/open_destination.h"
#include "copy/place.h"
#include "copy/sink/digest_sink.h"
#include "copy/sink/null_sink.h"
#include "copy/source/local_source.h"
#include "copy/source/nbd_source.h"
#include "copy/space_check.h"

namespace vc::copy {

using qcow2::Format;
using qcow2::Geometry;

// Opens the source, and decides everything that needs no data.
Result<void> CopyJob::prepare() {
  ASSIGN_OR_RETURN(source_, CopySource::open(options_, cancel_, stop_));
  summary_.free_space = source_->free_space();
  transfer_.emplace(options_, *source_, progress_, cancel_, stop_);
  ASSIGN_OR_RETURN(const auto destination, DestinationType::probe(options_));
  RETURN_IF_ERROR(check_not_source(options_, destination, source()));
  ASSIGN_OR_RETURN(plan_, CopyPlan::create(options_, destination, source()));
  ASSIGN_OR_RETURN(snapshots_, SnapshotCopy::open(options_, *source_, plan_));
  if (snapshots_) transfer_->carry(*snapshots_);
  RETURN_IF_ERROR(may_clone(options_, plan_, source()));
  RETURN_IF_ERROR(plan_bitmaps());
  if (options_.verify)
    digests_.emplace(
        source().is_stream() ? Digests::kUnknown : source().size(),
        std::max<uint64_t>(plan_.worker.geometry.cluster_size(), Geometry::kSectorSize),
        options_.keeps_backing() ? Digests::Zeros::kTold : Digests::Zeros::kImplied);
  return {};
}

Result<void> CopyJob::plan_bitmaps() {
  const bool to_image = plan_.destination.format == Format::kQcow2 &&
                        plan_.destination.kind != Kind::kNull && !source().is_stream();
  ASSIGN_OR_RETURN(bitmaps_,
                   CarriedBitmaps::open(options_, *source_, to_image, plan_.build.version));
  if (!bitmaps_) return {};
  plan_.build.bitmaps = bitmaps_->bitmaps();
  summary_.bitmaps = plan_.build.bitmaps.size();
  summary_.bitmaps_left_out = bitmaps_->selection().left_out;
  return with_context(qcow2::check(plan_.build), options_.destination);
}

Result<void> CopyJob::check() {
  RETURN_IF_ERROR(prepare());
  if (plan_.destination.kind != Kind::kFile || options_.is_update()) return {};
  return try_destination(options_, plan_);
}

Result<void> CopyJob::check_late_source() const {
  if (!options_.late) return {};
  const uint64_t begin = options_.late->begin;
  if (source().files().empty() || plan_.destination.kind != Kind::kFile || options_.dry_run ||
      options_.salvage || begin > source().size() ||
      begin % plan_.worker.geometry.cluster_size() != 0)
    return fail(Error::invalid("the rest of the source cannot be a late one"));
  return {};
}

// Checks before the first write that a device is large enough. If all clusters uncompressed would
// not fit, a dry run finds the exact size of the image.
Result<void> CopyJob::check_device() {
  if (source().is_stream() || options_.is_update()) return {};
  const std::string& name = options_.destination;
  const qcow2::BuildOptions& build = plan_.build;
  const Geometry& geometry = plan_.worker.geometry;
  if (plan_.destination.kind == Kind::kFile && !build.data_file.empty()) {
    ASSIGN_OR_RETURN(const std::string data, qcow2::resolve_name(name, build.data_file));
    std::error_code ignored;
    if (std::filesystem::is_block_file(data, ignored))
      return check_device_place(data, build.rounded_size(), "a disk");
  }
  if (plan_.destination.kind != Kind::kDevice) return {};
  if (plan_.destination.format == Format::kRaw)
    return check_device_place(name, source().size(), "a disk");
  uint64_t live = 0;
  if (build.data_file.empty()) {
    ASSIGN_OR_RETURN(live, count_live_clusters(source(), geometry, stop_));
  }
  uint64_t most = qcow2::Builder::metadata_bytes(build, live) + (live << geometry.cluster_bits());
  if (snapshots_) {
    ASSIGN_OR_RETURN(const uint64_t others, snapshots_->most_bytes(stop_));
    most += others;
  }
  if (check_device_place(name, most, "an image")) return {};
  progress_.begin(Phase::kLayout);
  ASSIGN_OR_RETURN(const uint64_t needed, transfer_->dry_run(plan_));
  progress_.begin(Phase::kCopy);
  return check_device_place(name, needed, "an image");
}

Result<CopySummary> CopyJob::run() {
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(prepare());
  RETURN_IF_ERROR(check_late_source());
  ASSIGN_OR_RETURN(summary_.source, source().replaced_size());
  RETURN_IF_ERROR(check_device());
  if (options_.dry_run) return predict();
  RETURN_IF_ERROR(copy());
  if (options_.verify && !summary_.verified) RETURN_IF_ERROR(verify_copy(options_.destination));
  sum_up(start);
  return summary_;
}

// Moves the data, and completes the destination.
Result<void> CopyJob::copy() {
  ASSIGN_OR_RETURN(const auto destination, open_destination(options_, *source_, plan_, *transfer_,
                                                            snapshots_.get(), stop_));
  std::optional<DigestSink> digesting;
  if (digests_) digesting.emplace(destination->sink(), *digests_, plan_.worker.compression.type);
  RETURN_IF_ERROR(transfer_->run(digesting ? static_cast<Sink&>(*digesting) : destination->sink(),
                                 plan_, destination->image_sink()));
  const uint64_t size = source().size();
  if (source().is_stream()) {
    RETURN_IF_ERROR(destination->set_size(size));
    if (digests_) digests_->end_at(size);
  }
  if (cancel_.requested()) return fail(Error::cancelled());
  RETURN_IF_ERROR(destination->write_out());
  progress_.update(total(), total());
  // If possible, verifies before the copy gets its name, which may belong to a good file.
  const auto early = destination->path_to_read();
  if (options_.verify && early) RETURN_IF_ERROR(verify_copy(*early));
  ASSIGN_OR_RETURN(Descriptor file, destination->share());
  ASSIGN_OR_RETURN(summary_.destination, destination->measure());
  RETURN_IF_ERROR(destination->complete());
  if (file) summary_.file = std::make_shared<Descriptor>(std::move(file));
  return {};
}

// Opens the copy for reading. `path`: of the copy, if it is a file or device.
Result<std::unique_ptr<Source>> CopyJob::open_copy(const std::string& path) {
  if (plan_.destination.kind == Kind::kServer) {
    NbdSource::Options how;
    how.tuning = options_.nbd;
    ASSIGN_OR_RETURN(std::unique_ptr<Source> server,
                     NbdSource::open(*plan_.destination.server, how, stop_));
    return server;
  }
  forget_cached(path);
  const LocalSource::Options own{plan_.destination.format,
                                 "",
                                 false,
                                 {options_.trust.names.for_own_image(),
                                  {},
                                  keys_of_copy(options_.image.encryption, options_.trust)}};
  // The copy may have no name yet.
  ASSIGN_OR_RETURN(std::unique_ptr<Source> copy,
                   with_context(LocalSource::open(path, own), options_.destination));
  if (options_.keeps_backing()) {
    ASSIGN_OR_RETURN(const std::string base, backing_path(options_, plan_.destination));
    RETURN_IF_ERROR(copy->keep_backing(base, plan_.worker.geometry.cluster_size()));
  }
  return copy;
}

Result<void> CopyJob::verify_copy(const std::string& path) {
  ASSIGN_OR_RETURN(const auto copy, open_copy(path));
  if (snapshots_) transfer_->parts().set_total(total());
  auto verified = verify(*digests_, *copy, transfer_->pipeline_options(plan_), transfer_->parts(),
                         cancel_, &source());
  if (verified && snapshots_) {
    auto others = verify_snapshots(*copy, *verified);
    if (!others) return others;
  }
  // Messages name the path that was read, which may differ from the destination.
  if (plan_.destination.kind != Kind::kServer && path != options_.destination)
    verified = with_context(std::move(verified), options_.destination);
  ASSIGN_OR_RETURN(summary_.verified, std::move(verified));
  return bitmaps_ ? with_context(bitmaps_->verify(*copy), options_.destination) : Result<void>{};
}

Result<void> CopyJob::verify_snapshots(Source& copy, VerifySummary& summary) {
  const auto* const local = dynamic_cast<const LocalSource*>(&copy);
  if (!local) return fail(Error::invalid(copy.name() + ": is no image with snapshots"));
  return snapshots_->verify(local->chain(), transfer_->parts(), cancel_, summary);
}

uint64_t CopyJob::total() const {
  return snapshots_ ? snapshots_->total() : source().size();
}

// Does everything except writing, and predicts the result.
Result<CopySummary> CopyJob::predict() {
  const auto start = std::chrono::steady_clock::now();
  const bool is_update = options_.is_update();
  if (plan_.destination.format == Format::kQcow2 && !is_update) {
    ASSIGN_OR_RETURN(summary_.predicted, transfer_->dry_run(plan_));
  } else {
    NullSink sink(plan_.worker.geometry);
    RETURN_IF_ERROR(transfer_->run(sink, plan_));
    summary_.predicted = transfer_->counts().data * plan_.worker.geometry.cluster_size();
  }
  if (cancel_.requested()) return fail(Error::cancelled());
  progress_.update(total(), total());
  sum_up(start);
  if (plan_.destination.kind == Kind::kFile && !is_update)
    RETURN_IF_ERROR(
        check_file_place(options_.destination, options_.overwrite, *summary_.predicted));
  return summary_;
}

void CopyJob::sum_up(std::chrono::steady_clock::time_point start) {
  const Transfer::Counts& counts = transfer_->counts();
  const Geometry& geometry = plan_.worker.geometry;
  if (source().losses()) summary_.lost = source().losses()->list(source().size());
  summary_.format = plan_.destination.format;
  summary_.virtual_size = source().size();
  summary_.cluster_size = geometry.cluster_size();
  summary_.data_clusters = counts.data;
  summary_.compressed_clusters = counts.compressed;
  summary_.passed_through_clusters = counts.passed_through;
  summary_.found_zero_clusters = counts.found_zero;
  summary_.zero_clusters =
      geometry.clusters_for(summary_.virtual_size) - counts.data - counts.compressed;
  if (snapshots_) {
    summary_.snapshots = snapshots_->count();
    summary_.snapshot_clusters = snapshots_->clusters();
  }
  if (plan_.worker.cloning) summary_.cloned = plan_.worker.cloning->cloned();
  summary_.elapsed = std::chrono::steady_clock::now() - start;
}

}  // namespace vc::copy
