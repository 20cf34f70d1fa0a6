#include "inspect/measurement.h"

#include <algorithm>

#include "copy/copy_job.h"
#include "copy/sink/null_sink.h"
#include "copy/sink/qcow2_sink.h"
#include "copy/sink/stream_storage.h"

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
                     copy::build_options(options.image, empty, nullptr, options.compression));
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
    ASSIGN_OR_RETURN(const auto as_qemu, copy::build_options(with_qemu_defaults(options.image),
                                                             empty, nullptr, options.compression));
    measured.qemu = qemu_measure(as_qemu, options.image.preallocation, 0);
  }
  if (qemu_raw || measured.format == qcow2::Format::kRaw) measured.qemu = qemu_measure_raw(size);
  measured.low = measured.high = measured.file_size;
  return measured;
}

// A copy that is only measured.
class SourceMeasuring final : private copy::CopyJob {
 public:
  SourceMeasuring(const MeasureOptions& options, Progress& progress, const Cancel& cancel)
      : copy::CopyJob(options.copy, progress, cancel) {}

  // Reads up to `budget` bytes of the source; 0: all of it.
  Result<Measurement> measure(uint64_t budget, bool qemu_raw);

 private:
  Result<void> measure_as_qemu(Measurement& measured);
};

Result<void> SourceMeasuring::measure_as_qemu(Measurement& measured) {
  ASSIGN_OR_RETURN(const auto build,
                   copy::build_options(with_qemu_defaults(options_.image), source_->get(), nullptr,
                                       options_.compression));
  const qcow2::Geometry geometry = build.geometry();
  // For a stream, only the amount of data is known, not its location.
  uint64_t data =
      ((summary_.data_clusters + summary_.compressed_clusters) * worker_.geometry.cluster_size() +
       geometry.cluster_size() - 1) /
      geometry.cluster_size();
  if (!source_->get().is_stream()) {
    ASSIGN_OR_RETURN(data, qemu_data_clusters(*source_, geometry, stop_));
  }
  measured.qemu = qemu_measure(build, options_.image.preallocation, data);
  // Version 2 has no bitmaps.
  if (!source_->local() || !source_->local()->chain().image() || build.version < 3) return {};
  const auto& chain = source_->local()->chain();
  ASSIGN_OR_RETURN(measured.bitmaps, bitmaps_size(*chain.storage(), chain.image()->header(),
                                                  source_->get().size(), geometry.cluster_size()));
  return {};
}

Result<Measurement> SourceMeasuring::measure(uint64_t budget, bool qemu_raw) {
  const auto start = std::chrono::steady_clock::now();
  Measurement measured;
  RETURN_IF_ERROR(open_source());
  format_ = options_.format.value_or(qcow2::Format::kQcow2);
  if (format_ == qcow2::Format::kRaw && options_.compression)
    return fail(Error::invalid("compression needs QCOW2: a raw disk cannot be compressed"));
  RETURN_IF_ERROR(decide());
  progress_.begin(Phase::kMeasure);
  copy::Source& from = source_->get();
  measured.format = format_;
  const bool qcow2 = format_ == qcow2::Format::kQcow2;
  const bool plain_layout = options_.image.preallocation == copy::Preallocation::kOff &&
                            !keeps_backing() && build_.data_file.empty();
  if (qcow2 && budget != 0 && plain_layout && !from.is_stream()) {
    ASSIGN_OR_RETURN(const SizeEstimate estimate, estimate_size(from, build_, worker_, budget,
                                                                plan().threads, progress_, stop_));
    measured.exact = estimate.all_read;
    measured.file_size = estimate.file_size;
    measured.low = estimate.low;
    measured.high = estimate.high;
    measured.sampled = estimate.sampled;
  }
  if (qcow2 && measured.exact) {
    ASSIGN_OR_RETURN(measured.file_size, dry_run());
  } else if (from.is_stream()) {
    copy::NullSink sink(worker_.geometry);
    RETURN_IF_ERROR(run_pipeline(sink));
  }
  measured.virtual_size = from.size();
  if (!qcow2) {
    measured.file_size = measured.virtual_size;
  } else {
    measured.cluster_size = worker_.geometry.cluster_size();
  }
  if (!qcow2 || qemu_raw) {
    measured.qemu = qemu_measure_raw(measured.virtual_size);
  } else {
    RETURN_IF_ERROR(measure_as_qemu(measured));
  }
  if (measured.exact) measured.low = measured.high = measured.file_size;
  progress_.update(measured.virtual_size, measured.virtual_size);
  measured.free_space = summary_.free_space;
  measured.elapsed = std::chrono::steady_clock::now() - start;
  return measured;
}

}  // namespace

Result<Measurement> measure(const MeasureOptions& options, Progress& progress,
                            const Cancel& cancel) {
  if (options.size) return measure_empty(options.copy, *options.size, options.qemu_raw);
  return SourceMeasuring(options, progress, cancel).measure(options.budget, options.qemu_raw);
}

}  // namespace vc::inspect
