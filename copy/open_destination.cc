#include "copy/open_destination.h"

#include <unistd.h>

#include "copy/clone_plan.h"
#include "copy/sink/file_destination.h"
#include "copy/sink/nbd_sink.h"
#include "copy/sink/null_sink.h"
#include "copy/sink/stream_destination.h"
#include "copy/sink/update_destination.h"
#include "copy/source/nbd_source.h"
#include "copy/space_check.h"

namespace vc::copy {

using qcow2::Format;

namespace {

constexpr const char* kStandardOutput = "standard output";

// A destination without a file.
template <typename AnySink>
class PlainDestination final : public Destination {
 public:
  explicit PlainDestination(std::unique_ptr<AnySink> sink) : sink_(std::move(sink)) {}

  Sink& sink() override { return *sink_; }
  Result<void> set_size(uint64_t /*size*/) override { return {}; }
  Result<void> write_out() override { return sink_->finish(); }
  Result<void> complete() override { return {}; }
  Result<std::optional<FileSize>> measure() override { return std::optional<FileSize>{}; }

 private:
  const std::unique_ptr<AnySink> sink_;
};

class Opening {
 public:
  Opening(const CopyOptions& options, const CopySource& source, CopyPlan& plan, Transfer& transfer,
          SnapshotCopy* snapshots, const Stop& stop)
      : options_(options),
        source_(source.get()),
        plan_(plan),
        transfer_(transfer),
        snapshots_(snapshots),
        stop_(stop) {}

  Result<std::unique_ptr<Destination>> open();

 private:
  Result<std::unique_ptr<Destination>> open_stream();
  Result<std::unique_ptr<Destination>> open_spooled();
  Result<std::unique_ptr<Destination>> open_server();
  Result<std::unique_ptr<Destination>> open_update();
  Result<std::unique_ptr<Destination>> create_raw();
  template <typename FileDestination>
  Result<void> prepare_clones(FileDestination& destination);
  Result<std::unique_ptr<Destination>> create_image();

  Qcow2Sink::Options sink_options(qcow2::Builder::Gaps gaps) const {
    return {plan_.build, options_.image.preallocation != Preallocation::kOff, gaps};
  }

  const CopyOptions& options_;
  Source& source_;
  CopyPlan& plan_;
  Transfer& transfer_;
  SnapshotCopy* const snapshots_;
  const Stop& stop_;
};

Result<std::unique_ptr<Destination>> Opening::open_stream() {
  if (::isatty(STDOUT_FILENO) != 0)
    return fail(Error::invalid("standard output is a terminal: redirect it to a file or a pipe"));
  if (!plan_.build.data_file.empty())
    return fail(
        Error::invalid("data_file: only an image in a file can have an external data file"));
  if (plan_.destination.format == Format::kRaw) {
    std::unique_ptr<Destination> raw = StreamDestination::raw(
        STDOUT_FILENO, kStandardOutput, source_.size(), plan_.worker.geometry, stop_);
    return raw;
  }
  // Reading a file twice is cheap. Compressing or downloading it twice is not.
  const bool twice = options_.spool ? options_.spool->empty()
                                    : source_.is_cheap_to_reread() && !plan_.worker.compression;
  if (snapshots_ && options_.spool && options_.spool->empty())
    return fail(Error::invalid(
        "--spool=none: an image with snapshots is read back while it is written: name a folder, as "
        "in --spool=/var/tmp"));
  if (!twice || snapshots_) return open_spooled();
  if (source_.is_stream())
    return fail(Error::invalid(
        "--spool=none: a pipe cannot be read twice: name a folder, as in --spool=/var/tmp"));
  ASSIGN_OR_RETURN(auto start, transfer_.first_cluster(plan_));
  ASSIGN_OR_RETURN(
      std::unique_ptr<Destination> stream,
      StreamDestination::qcow2_image(STDOUT_FILENO, kStandardOutput, std::move(start),
                                     sink_options(qcow2::Builder::Gaps::kZero), stop_));
  return stream;
}

Result<std::unique_ptr<Destination>> Opening::open_spooled() {
  const std::string folder = spool_folder(options_);
  ASSIGN_OR_RETURN(auto spooled,
                   SpooledDestination::create(STDOUT_FILENO, kStandardOutput, folder,
                                              sink_options(qcow2::Builder::Gaps::kLeave), stop_));
  if (!source_.is_stream())
    RETURN_IF_ERROR(
        check_space(source_, plan_.build, plan_.worker, spooled->file(), stop_, snapshots_));
  return std::unique_ptr<Destination>(std::move(spooled));
}

Result<std::unique_ptr<Destination>> Opening::open_server() {
  const nbd::NbdTarget& target = *plan_.destination.server;
  NbdSink::Options how;
  how.tuning = options_.nbd;
  how.destination_is_zero = options_.destination_is_zero;
  how.granularity = plan_.worker.geometry.cluster_size();
  how.update = options_.is_update();
  uint64_t all = source_.size();
  if (source_.is_stream()) {
    // The whole disk of the server: the part past the end of the stream becomes zeros.
    NbdSource::Options reading;
    reading.tuning = options_.nbd;
    ASSIGN_OR_RETURN(const auto server, NbdSource::open(target, reading, stop_));
    all = server->size();
  }
  ASSIGN_OR_RETURN(auto sink, NbdSink::open(target, how, all, stop_));
  plan_.worker.geometry = sink->geometry();
  std::unique_ptr<Destination> server =
      std::make_unique<PlainDestination<NbdSink>>(std::move(sink));
  return server;
}

Result<std::unique_ptr<Destination>> Opening::open_update() {
  ASSIGN_OR_RETURN(auto update, UpdateDestination::open(options_.destination, source_.size(),
                                                        options_.trust.keys));
  plan_.worker.geometry = update->sink().geometry();
  return std::unique_ptr<Destination>(std::move(update));
}

// Must precede the first write into the destination.
template <typename FileDestination>
Result<void> Opening::prepare_clones(FileDestination& destination) {
  ASSIGN_OR_RETURN(const bool may, may_clone(options_, plan_, source_));
  OutputFile* const file = destination.data_file();
  if (!may || !file) return {};
  Cloning::Options how;
  how.mode = options_.reflink;
  how.cluster_size = plan_.worker.geometry.cluster_size();
  how.search_groups = plan_.destination.format == Format::kRaw && options_.sparse_size == 0;
  ASSIGN_OR_RETURN(plan_.worker.cloning, Cloning::create(*file, how, source_.files()));
  destination.set_cloning(plan_.worker.cloning);
  return {};
}

Result<std::unique_ptr<Destination>> Opening::create_raw() {
  ASSIGN_OR_RETURN(auto raw, RawDestination::create(
                                 options_.destination, options_.overwrite,
                                 source_.is_stream() ? 0 : source_.size(), plan_.worker.geometry,
                                 options_.image.preallocation, options_.destination_is_zero));
  RETURN_IF_ERROR(prepare_clones(*raw));
  if (const auto* file = raw->target().file(); file && !source_.is_stream())
    RETURN_IF_ERROR(check_raw_space(source_, plan_.worker, *file, stop_));
  return std::unique_ptr<Destination>(std::move(raw));
}

Result<std::unique_ptr<Destination>> Opening::create_image() {
  ASSIGN_OR_RETURN(auto image, Qcow2Destination::create(options_.destination, options_.overwrite,
                                                        plan_.build, options_.image.preallocation));
  RETURN_IF_ERROR(prepare_clones(*image));
  const auto* const file = image->target().file();
  if (file && !source_.is_stream() && plan_.build.data_file.empty())
    RETURN_IF_ERROR(check_space(source_, plan_.build, plan_.worker, *file, stop_, snapshots_));
  return std::unique_ptr<Destination>(std::move(image));
}

Result<std::unique_ptr<Destination>> Opening::open() {
  switch (plan_.destination.kind) {
    case DestinationType::Kind::kStream:
      return open_stream();
    case DestinationType::Kind::kNull: {
      std::unique_ptr<Destination> none = std::make_unique<PlainDestination<NullSink>>(
          std::make_unique<NullSink>(plan_.worker.geometry));
      return none;
    }
    case DestinationType::Kind::kServer:
      return open_server();
    case DestinationType::Kind::kFile:
    case DestinationType::Kind::kDevice:
      break;
  }
  if (options_.is_update()) return open_update();
  return plan_.destination.format == Format::kRaw ? create_raw() : create_image();
}

}  // namespace

Result<std::unique_ptr<Destination>> open_destination(const CopyOptions& options,
                                                      const CopySource& source, CopyPlan& plan,
                                                      Transfer& transfer, SnapshotCopy* snapshots,
                                                      const Stop& stop) {
  return Opening(options, source, plan, transfer, snapshots, stop).open();
}

Result<void> try_destination(const CopyOptions& options, const CopyPlan& plan) {
  // A file that is dropped before it is complete leaves nothing behind.
  if (plan.destination.format == Format::kRaw)
    return RawDestination::create(options.destination, options.overwrite, 0, plan.worker.geometry,
                                  Preallocation::kOff, false)
        .map([](const auto&) {});
  return Qcow2Destination::create(options.destination, options.overwrite, plan.build,
                                  options.image.preallocation)
      .map([](const auto&) {});
}

}  // namespace vc::copy
