#include "copy/measurement.h"

#include "copy/sink/qcow2_sink.h"
#include "copy/sink/stream_storage.h"

namespace copy {

using qcow2::Extent;
using qcow2::GuestOffset;
using qcow2::Result;

namespace {

// A disk on which nothing was ever written.
class EmptySource final : public Source {
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

Result<Measurement> measure_empty(const CopyOptions& options, uint64_t size, bool qemu_raw) {
  Measurement measured;
  measured.format = options.format.value_or(qcow2::Format::kQcow2);
  measured.virtual_size = size;
  if (measured.format == qcow2::Format::kRaw) {
    if (options.compression)
      return qcow2::fail(qcow2::Error::invalid("compression is for QCOW2: a raw disk has none"));
    measured.file_size = size;
  } else {
    EmptySource empty(size);
    ASSIGN_OR_RETURN(const auto build,
                     build_options(options.image, empty, nullptr, options.compression));
    DryStorage out(0);
    DryStorage data(0);
    const bool preallocate = options.image.preallocation != Preallocation::kOff;
    ASSIGN_OR_RETURN(const auto sink,
                     Qcow2Sink::create(out, build.data_file.empty() ? nullptr : &data,
                                       {build, preallocate, qcow2::Builder::Gaps::kLeave, true}));
    RETURN_IF_ERROR(sink->finish());
    ASSIGN_OR_RETURN(measured.file_size, out.size());
    measured.cluster_size = build.geometry().cluster_size();
    ASSIGN_OR_RETURN(const auto as_qemu, build_options(with_qemu_defaults(options.image), empty,
                                                       nullptr, options.compression));
    measured.qemu = qemu_measure(as_qemu, options.image.preallocation, 0);
  }
  if (qemu_raw || measured.format == qcow2::Format::kRaw) measured.qemu = qemu_measure_raw(size);
  measured.low = measured.high = measured.file_size;
  return measured;
}

}  // namespace

Result<Measurement> measure(const MeasureOptions& options, Progress& progress,
                            const Cancel& cancel) {
  if (options.size) return measure_empty(options.copy, *options.size, options.qemu_raw);
  return measure_source(options, progress, cancel);
}

}  // namespace copy
