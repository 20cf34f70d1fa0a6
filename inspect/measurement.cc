#include "inspect/measurement.h"

#include <algorithm>

#include "copy/carried_bitmaps.h"
#include "copy/copy_plan.h"
#include "copy/copy_source.h"
#include "copy/sink/null_sink.h"
#include "copy/sink/qcow2_sink.h"
#include "copy/sink/stream_storage.h"
#include "copy/snapshot_copy.h"
#include "copy/space_check.h"
#include "copy/transfer.h"

namespace vc::inspect {

using qcow2::Extent;

namespace {

// A disk on which nothing was ever written.
class EmptySource final : public copy::Source {
 public:
  explicit EmptySource(uint64_t size) : size_(size) {}

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  std::optional<uint64_t> cluster_size() const override { return std::nullopt; }
  Result<void> map(GuestOffset at, uint64_t length, std::vector<Extent>& out) override {
    Extent extent;
    extent.guest = at;
    extent.length = length;
    out.push_back(extent);
    return {};
  }
  Result<void> read(GuestOffset /*at*/, std::span<std::byte> to) override {
    std::fill(to.begin(), to.end(), std::byte{0});
    return {};
  }

 private:
  const std::string name_ = "empty disk";
  const uint64_t size_;
};

Result<Measurement> measure_empty(const copy::CopyOptions& options, uint64_t size, bool qemu_raw) {
  Measurement measured;
  measured.format = options.format.value_or(qcow2::Format::kQcow2);
  measured.virtual_size = size;
  if (measured.format == qcow2::Format::kRaw) {
    if (options.compression)
      return fail(Error::invalid("compression needs QCOW2: a raw disk cannot be compressed"));
    measured.file_size = size;
  } else {
    EmptySource empty(size);
    ASSIGN_OR_RETURN(const auto build,
                     copy::build_options(options.image, empty, nullptr, options.compression.type));
    copy::DryStorage out(0);
    copy::DryStorage data(0);
    const bool preallocate = options.image.preallocation != copy::Preallocation::kOff;
    ASSIGN_OR_RETURN(
        const auto sink,
        copy::Qcow2Sink::create(out, build.data_file.empty() ? nullptr : &data,
                                {build, preallocate, qcow2::Builder::Gaps::kLeave, true}));
    RETURN_IF_ERROR(sink->finish());
    ASSIGN_OR_RETURN(measured.file_size, out.size());
    measured.cluster_size = build.geometry().cluster_size();
    ASSIGN_OR_RETURN(const auto as_qemu,
                     copy::build_options(with_qemu_defaults(options.image), empty, nullptr,
                                         options.compression.type));
    measured.qemu = qemu_measure(as_qemu, options.image.preallocation, 0);
  }
  if (qemu_raw || measured.format == qcow2::Format::kRaw) measured.qemu = qemu_measure_raw(size);
  measured.low = measured.high = measured.file_size;
  return measured;
}

// A copy that is only measured.
class SourceMeasuring {
 public:
  SourceMeasuring(const MeasureOptions& options, Progress& progress, const Cancel& cancel)
      : options_(options), progress_(progress), cancel_(cancel), stop_(cancel) {}

  Result<Measurement> measure();

 private:
  Result<void> prepare();
  Result<void> measure_image();
  Result<void> add_snapshots(unsigned threads);
  Result<void> measure_as_qemu();
  copy::Source& source() const { return source_->get(); }

  const MeasureOptions& options_;
  Progress& progress_;
  const Cancel& cancel_;
  Stop stop_;
  std::optional<copy::CopySource> source_;
  copy::CopyPlan plan_;
  std::unique_ptr<copy::CarriedBitmaps> bitmaps_;  // nullptr: none
  std::unique_ptr<copy::SnapshotCopy> snapshots_;  // nullptr: none
  std::optional<copy::Transfer> transfer_;
  Measurement measured_;
};

Result<void> SourceMeasuring::prepare() {
  const copy::CopyOptions& options = options_.copy;
  ASSIGN_OR_RETURN(source_, copy::CopySource::open(options, cancel_, stop_));
  transfer_.emplace(options, *source_, progress_, cancel_, stop_);
  copy::DestinationType file;
  file.format = options.format.value_or(qcow2::Format::kQcow2);
  if (file.format == qcow2::Format::kRaw && options.compression)
    return fail(Error::invalid("compression needs QCOW2: a raw disk cannot be compressed"));
  ASSIGN_OR_RETURN(plan_, copy::CopyPlan::create(options, file, source()));
  ASSIGN_OR_RETURN(snapshots_, copy::SnapshotCopy::open(options, *source_, plan_));
  if (snapshots_) transfer_->carry(*snapshots_);
  const bool to_image = file.format == qcow2::Format::kQcow2 && !source().is_stream();
  ASSIGN_OR_RETURN(bitmaps_,
                   copy::CarriedBitmaps::open(options, *source_, to_image, plan_.build.version));
  if (!bitmaps_) return {};
  plan_.build.bitmaps = bitmaps_->bitmaps();
  return with_context(qcow2::check(plan_.build), options.source);
}

Result<void> SourceMeasuring::measure_as_qemu() {
  ASSIGN_OR_RETURN(const auto build,
                   copy::build_options(with_qemu_defaults(options_.copy.image), source(), nullptr,
                                       options_.copy.compression.type));
  const qcow2::Geometry geometry = build.geometry();
  // For a stream, only the amount of data is known, not its location.
  const auto& counts = transfer_->counts();
  uint64_t data = ((counts.data + counts.compressed) * plan_.worker.geometry.cluster_size() +
                   geometry.cluster_size() - 1) /
                  geometry.cluster_size();
  if (!source().is_stream()) {
    ASSIGN_OR_RETURN(data, qemu_data_clusters(source(), geometry, stop_));
  }
  measured_.qemu = qemu_measure(build, options_.copy.image.preallocation, data);
  const qcow2::Image* const image = source().image();
  // Version 2 has no bitmaps.
  if (!image || build.version < 3) return {};
  ASSIGN_OR_RETURN(measured_.bitmaps, bitmaps_size(image->storage(), image->header(),
                                                   source().size(), geometry.cluster_size()));
  return {};
}

// Adds estimates of what each snapshot stores, as of an image that holds nothing else. Only if all
// data is within the budget, the size can be exact.
Result<void> SourceMeasuring::add_snapshots(unsigned threads) {
  const auto estimated = [&](copy::Source& part, uint64_t metadata) -> Result<void> {
    ASSIGN_OR_RETURN(const uint64_t live,
                     copy::count_live_clusters(part, plan_.worker.geometry, stop_));
    ASSIGN_OR_RETURN(const uint64_t bytes, copy::estimate_bytes(part, live, plan_.worker, stop_));
    measured_.file_size += bytes + metadata;
    measured_.low += metadata;
    measured_.high += (live << plan_.build.cluster_bits) + metadata;
    return {};
  };
  if (measured_.exact) {
    ASSIGN_OR_RETURN(const uint64_t others, snapshots_->most_bytes(stop_));
    if (others <= options_.budget) return {};
    measured_.exact = false;
    RETURN_IF_ERROR(estimated(source(), 0));
  }
  const auto add = [&](copy::Source& part, uint64_t size, uint64_t metadata) -> Result<void> {
    if (size == 0) return {};
    qcow2::BuildOptions build = plan_.build;
    build.size = size;
    build.bitmaps.clear();  // they are counted with the disk
    ASSIGN_OR_RETURN(
        const SizeEstimate estimate,
        estimate_size(part, build, plan_.worker, options_.budget, threads, progress_, stop_));
    if (estimate.all_read) return estimated(part, metadata);
    measured_.sampled += estimate.sampled;
    measured_.file_size += estimate.file_size + metadata;
    measured_.low += estimate.low;
    measured_.high += estimate.high + metadata;
    return {};
  };
  return snapshots_->for_each_part(add, stop_);
}

// Measures an image: estimates its size if the budget allows no more, else builds it.
Result<void> SourceMeasuring::measure_image() {
  const bool plain_layout = options_.copy.image.preallocation == copy::Preallocation::kOff &&
                            !options_.copy.keeps_backing() && plan_.build.data_file.empty();
  if (options_.budget != 0 && plain_layout && !source().is_stream()) {
    const unsigned threads = transfer_->pipeline_options(plan_).threads;
    ASSIGN_OR_RETURN(const SizeEstimate estimate,
                     estimate_size(source(), plan_.build, plan_.worker, options_.budget, threads,
                                   progress_, stop_));
    measured_.exact = estimate.all_read;
    measured_.file_size = estimate.file_size;
    measured_.low = estimate.low;
    measured_.high = estimate.high;
    measured_.sampled = estimate.sampled;
    if (snapshots_) RETURN_IF_ERROR(add_snapshots(threads));
  }
  if (measured_.exact) {
    ASSIGN_OR_RETURN(measured_.file_size, transfer_->dry_run(plan_));
  }
  return {};
}

Result<Measurement> SourceMeasuring::measure() {
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(prepare());
  progress_.begin(Phase::kMeasure);
  measured_.format = plan_.destination.format;
  const bool qcow2 = measured_.format == qcow2::Format::kQcow2;
  if (qcow2) {
    RETURN_IF_ERROR(measure_image());
  } else if (source().is_stream()) {
    copy::NullSink sink(plan_.worker.geometry);
    RETURN_IF_ERROR(transfer_->run(sink, plan_));
  }
  measured_.virtual_size = source().size();
  if (!qcow2) {
    measured_.file_size = measured_.virtual_size;
  } else {
    measured_.cluster_size = plan_.worker.geometry.cluster_size();
  }
  if (!qcow2 || options_.qemu_raw) {
    measured_.qemu = qemu_measure_raw(measured_.virtual_size);
  } else {
    RETURN_IF_ERROR(measure_as_qemu());
  }
  if (measured_.exact) measured_.low = measured_.high = measured_.file_size;
  progress_.update(measured_.virtual_size, measured_.virtual_size);
  measured_.free_space = source_->free_space();
  measured_.elapsed = std::chrono::steady_clock::now() - start;
  return measured_;
}

}  // namespace

Result<Measurement> measure(const MeasureOptions& options, Progress& progress,
                            const Cancel& cancel) {
  if (options.size) return measure_empty(options.copy, *options.size, options.qemu_raw);
  return SourceMeasuring(options, progress, cancel).measure();
}

}  // namespace vc::inspect
