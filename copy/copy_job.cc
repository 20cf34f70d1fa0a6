#include "copy/copy_job.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/retry.h"
#include "base/stop.h"
#include "copy/pipeline/pipeline.h"
#include "copy/place.h"
#include "copy/room.h"
#include "copy/sink/digest_sink.h"
#include "copy/sink/file_destination.h"
#include "copy/sink/nbd_sink.h"
#include "copy/sink/null_sink.h"
#include "copy/sink/stream_destination.h"
#include "copy/sink/update_destination.h"
#include "copy/source/any_source.h"

namespace vc::copy {

using qcow2::Format;
using qcow2::Geometry;

namespace {

constexpr uint64_t kChunkSize = 1 << 20;
// Memory limit of chunks and codecs together, bytes. The memory of a copy does not depend on the
// size of the disk, and depends on the number of processors only up to this limit.
constexpr uint64_t kMemory = 80 << 20;
// Default size of holes in raw destinations: a page in a file; on a server, enough zeros to be
// worth a request.
constexpr uint64_t kFileHole = 4 << 10;
constexpr uint64_t kServerHole = 64 << 10;
constexpr const char* kStandardOutput = "standard output";

// Returns an error if the destination is one of the files that are read, under any name.
Result<void> check_not_source(const LocalSource& source, const std::string& destination) {
  struct stat status {};
  const bool standard_output = destination == "-";
  if ((standard_output ? retry(::fstat, STDOUT_FILENO, &status)
                       : retry(::stat, destination.c_str(), &status)) != 0)
    return {};
  // A pipe cannot be a file of the source.
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) return {};
  const auto identity = S_ISBLK(status.st_mode)
                            ? FileStorage::Identity{status.st_rdev, 0}
                            : FileStorage::Identity{status.st_dev, status.st_ino};
  for (const auto& file : source.chain().files())
    if (file->identity() == identity)
      return fail(
          Error::invalid((standard_output ? kStandardOutput : destination) +
                         (file->name() == destination || file == source.chain().files().front()
                              ? ": source and destination are the same file"
                              : ": the source reads from this file (as " + file->name() + ")")));
  return {};
}

Result<FileSize> size_of(const LocalSource& source) {
  FileSize size;
  for (const auto& file : source.replaced_files()) {
    ASSIGN_OR_RETURN(const uint64_t length, file->size());
    ASSIGN_OR_RETURN(const uint64_t blocks, file->blocks());
    size.length += length;
    size.blocks += file->is_block_device() ? length : blocks;
  }
  return size;
}

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

}  // namespace

// Returns the unit of an update with --bitmap: the cluster or hole size of the copy.
Result<uint64_t> CopyJob::unit_of_update() {
  ASSIGN_OR_RETURN(const auto server,
                   nbd_target(options_.destination, options_.destination_command));
  if (server) return hole_size(kServerHole);
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(options_.destination));
  ASSIGN_OR_RETURN(const auto header,
                   with_context(qcow2::Header::read(*file), options_.destination));
  return header.geometry().cluster_size();
}

Result<void> CopyJob::open_source() {
  AnySource::Options how;
  how.nbd = nbd_source();
  if (!options_.bitmap.empty()) {
    ASSIGN_OR_RETURN(const auto server, nbd_target(options_.source, options_.source_command));
    if (!server)
      return fail(
          Error::invalid("--bitmap: SRC must be an NBD server that exports the dirty bitmap"));
    how.nbd.bitmap = options_.bitmap;
    ASSIGN_OR_RETURN(how.nbd.dirty_unit, unit_of_update());
  }
  how.name = options_.source;
  how.command = options_.source_command;
  how.format = options_.source_format;
  how.snapshot = options_.snapshot;
  how.force_share = options_.force_share;
  how.trust = options_.trust;
  how.salvage = options_.salvage;
  ASSIGN_OR_RETURN(source_, AnySource::open(how, stop_));
  return leave_out_free_space();
}

Result<void> CopyJob::leave_out_free_space() {
  auto unused = options_.unused;
  if (options_.skip_free) {
    ASSIGN_OR_RETURN(summary_.free_space, find_free_space(*source_, cancel_));
    unused = summary_.free_space->ranges;
  }
  if (unused) source_->get().leave_out(unused);
  return {};
}

Result<void> CopyJob::look_at_destination() {
  const std::string& name = options_.destination;
  ASSIGN_OR_RETURN(server_, nbd_target(name == "null:" ? "" : name, options_.destination_command));
  struct stat status {};
  if (server_) {
    kind_ = Kind::kServer;
  } else if (name == "-") {
    kind_ = Kind::kStream;
  } else if (name == "null:") {
    kind_ = Kind::kNull;
  } else if (retry(::stat, name.c_str(), &status) == 0 && S_ISBLK(status.st_mode)) {
    kind_ = Kind::kDevice;
  }
  format_ = options_.format.value_or(
      kind_ == Kind::kServer || kind_ == Kind::kNull ? Format::kRaw : Format::kQcow2);
  if (kind_ == Kind::kDevice && !options_.format)
    return fail(Error::invalid(name + ": is a block device: choose what to write with -O raw (the "
                                      "disk itself) or -O qcow2 (an image)"));
  if (kind_ == Kind::kServer && format_ == Format::kQcow2)
    return fail(Error::unsupported(server_->name() +
                                   ": a QCOW2 image cannot be created behind NBD: serve an image "
                                   "with the nbdkit qcow2 plugin, and copy the disk into it"));
  if (format_ == Format::kRaw && options_.compression)
    return fail(Error::invalid("compression needs QCOW2: a raw disk cannot be compressed"));
  if (!options_.bitmap.empty()) {
    if (options_.compression)
      return fail(Error::invalid(
          "--bitmap: data that is written into an earlier copy cannot be compressed"));
    if (options_.verify)
      return fail(Error::invalid(
          "--bitmap and --verify: unchanged ranges are not read, so they cannot be compared"));
    if (kind_ != Kind::kFile && kind_ != Kind::kServer)
      return fail(Error::invalid(
          "--bitmap: DST must be an earlier copy: a QCOW2 image or the disk of a server"));
  }
  if (options_.verify && (kind_ == Kind::kStream || kind_ == Kind::kNull))
    return fail(Error::invalid("--verify: data that was sent to a pipe cannot be read again"));
  // Zeros may be written before anything is read. Different names of one disk are not detected.
  if (server_ && !server_->uri.empty() && server_->uri == options_.source)
    return fail(Error::invalid(name + ": source and destination are the same"));
  if (source_->local()) {
    RETURN_IF_ERROR(check_not_source(*source_->local(), name));
    if (kind_ == Kind::kFile && !options_.image.data_file.empty()) {
      ASSIGN_OR_RETURN(
          const std::string data,
          with_context(qcow2::resolve_name(name, options_.image.data_file), "data file"));
      RETURN_IF_ERROR(with_context(check_not_source(*source_->local(), data), "data file"));
    }
  }
  return {};
}

// Returns the path of the backing file that is kept. Its name is relative to the folder of the new
// image.
Result<std::string> CopyJob::backing_path() const {
  return with_context(qcow2::resolve_name(kind_ == Kind::kFile ? options_.destination : "",
                                          options_.image.backing_file),
                      "backing file");
}

std::optional<qcow2::CompressionType> CopyJob::kept_compression() const {
  const qcow2::Image* const image =
      source_->local() ? source_->local()->chain().image().get() : nullptr;
  if (!image || format_ != Format::kQcow2 || is_update() || !options_.image.data_file.empty())
    return std::nullopt;
  // Version 2 supports only zlib.
  if (options_.image.version.value_or(3) < 3) return qcow2::CompressionType::kDeflate;
  return options_.image.compression_type.value_or(image->header().compression_type);
}

// Returns the format of the backing file.
Result<std::string> CopyJob::keep_backing_file() {
  if (!source_->local())
    return fail(Error::invalid("-B: SRC must be an image file, not a server or a pipe"));
  ASSIGN_OR_RETURN(const std::string base, backing_path());
  return source_->local()->keep_backing(base, worker_.geometry.cluster_size());
}

// Decides clusters, codec and threads.
Result<void> CopyJob::decide() {
  Source& from = source_->get();
  if (format_ == Format::kQcow2) worker_.compression = options_.compression;
  if (!worker_.compression && options_.keep_compression) {
    worker_.compression = kept_compression();
    worker_.keep_plain = true;
  }
  worker_.level = options_.compression_level;
  worker_.window = options_.window;
  if (format_ == Format::kRaw) {
    const uint64_t hole = hole_size(kind_ == Kind::kServer ? kServerHole : kFileHole);
    worker_.geometry = Geometry(static_cast<unsigned>(std::countr_zero(hole)), false);
  } else {
    const qcow2::Image* const image =
        source_->local() ? source_->local()->chain().image().get() : nullptr;
    ASSIGN_OR_RETURN(build_,
                     with_context(build_options(options_.image, from, image, worker_.compression),
                                  options_.destination));
    worker_.geometry = build_.geometry();
    if (keeps_backing()) {
      ASSIGN_OR_RETURN(const std::string format, keep_backing_file());
      if (build_.backing_format.empty()) build_.backing_format = format;
    }
  }
  // Reports an invalid level before anything else starts.
  RETURN_IF_ERROR(ClusterWorker::create(worker_));
  if (options_.verify)
    digests_.emplace(is_stream() ? Digests::kUnknown : from.size(),
                     std::max<uint64_t>(worker_.geometry.cluster_size(), Geometry::kSectorSize),
                     keeps_backing() ? Digests::Zeros::kTold : Digests::Zeros::kImplied);
  return {};
}

Pipeline::Options CopyJob::plan() const {
  Pipeline::Options plan;
  plan.worker = worker_;
  plan.explicit_zeros = keeps_backing() || is_update();
  plan.limit = options_.rate_limit != 0 ? &limit_ : nullptr;
  const Source& from = source_->get();
  // A chunk should hold whole compressed clusters of the source, which would otherwise be decoded
  // twice, and whole requests to a server.
  plan.chunk_size =
      std::max({kChunkSize, worker_.geometry.cluster_size(), from.cluster_size().value_or(0),
                source_->nbd() || server_ ? options_.nbd.request_size : 0});
  const uint64_t each_chunk = plan.chunk_size * (worker_.compression ? 2 : 1);
  // a codec's tables, and a stream in transit
  const uint64_t each_thread = worker_.compression ? 5 * worker_.geometry.cluster_size() : 0;
  const uint64_t most_threads = std::max<uint64_t>(kMemory / (2 * each_chunk + each_thread), 1);
  plan.threads = options_.threads;
  if (plan.threads == 0) {
    // Threads that write to a server mostly wait for it.
    const unsigned wanted = std::max(std::thread::hardware_concurrency(),
                                     kind_ == Kind::kServer ? options_.nbd.connections : 1);
    plan.threads = static_cast<unsigned>(std::clamp<uint64_t>(wanted, 1, most_threads));
  }
  uint64_t chunks = uint64_t{plan.threads} * 2 + 1;
  if (source_->nbd())
    chunks += source_->nbd()->connections() *
              (options_.nbd.requests * options_.nbd.request_size / plan.chunk_size + 1);
  const uint64_t for_threads = std::min(kMemory, plan.threads * each_thread);
  plan.chunks = std::clamp<uint64_t>((kMemory - for_threads) / each_chunk, 2, chunks);
  return plan;
}

// Dry run: builds the image without storing it, to learn its first cluster.
Result<std::vector<std::byte>> CopyJob::first_pass() {
  DryStorage dry(worker_.geometry.cluster_size());
  const Qcow2Sink::Options how{build_, options_.image.preallocation != Preallocation::kOff,
                               qcow2::Builder::Gaps::kZero, true};
  ASSIGN_OR_RETURN(const auto sink, Qcow2Sink::create(dry, nullptr, how));
  progress_.begin(Phase::kLayout);
  Pipeline pipeline(source_->get(), *sink, progress_, stop_, plan());
  RETURN_IF_ERROR(pipeline.run());
  RETURN_IF_ERROR(sink->finish());
  progress_.begin(Phase::kCopy);
  return dry.start();
}

Result<std::unique_ptr<Destination>> CopyJob::open_stream() {
  if (::isatty(STDOUT_FILENO) != 0)
    return fail(Error::invalid("standard output is a terminal: redirect it to a file or a pipe"));
  if (!build_.data_file.empty())
    return fail(
        Error::invalid("data_file: only an image in a file can have an external data file"));
  if (format_ == Format::kRaw) {
    std::unique_ptr<Destination> raw = StreamDestination::raw(
        STDOUT_FILENO, kStandardOutput, source_->get().size(), worker_.geometry, stop_);
    return raw;
  }
  Qcow2Sink::Options how{build_, options_.image.preallocation != Preallocation::kOff,
                         qcow2::Builder::Gaps::kZero};
  // Reading a file twice is cheap. Compressing or downloading it twice is not.
  const bool twice = options_.spool ? options_.spool->empty()
                                    : source_->local() != nullptr && !worker_.compression;
  if (twice) {
    if (source_->stream())
      return fail(Error::invalid(
          "--spool=none: a pipe cannot be read twice: name a folder, as in --spool=/var/tmp"));
    ASSIGN_OR_RETURN(auto start, first_pass());
    ASSIGN_OR_RETURN(std::unique_ptr<Destination> stream,
                     StreamDestination::qcow2_image(STDOUT_FILENO, kStandardOutput,
                                                    std::move(start), how, stop_));
    return stream;
  }
  const char* const temporary = std::getenv("TMPDIR");
  const std::string folder = options_.spool            ? *options_.spool
                             : temporary && *temporary ? temporary
                                                       : "/var/tmp";
  how.gaps = qcow2::Builder::Gaps::kLeave;
  ASSIGN_OR_RETURN(auto spooled,
                   SpooledDestination::create(STDOUT_FILENO, kStandardOutput, folder, how, stop_));
  if (!is_stream())
    RETURN_IF_ERROR(check_room(source_->get(), build_, worker_, spooled->file(), stop_));
  return std::unique_ptr<Destination>(std::move(spooled));
}

Result<std::unique_ptr<Destination>> CopyJob::open_destination() {
  std::unique_ptr<Destination> destination;
  const std::string& name = options_.destination;
  const uint64_t size = source_->get().size();
  switch (kind_) {
    case Kind::kStream:
      return open_stream();
    case Kind::kNull:
      destination = std::make_unique<PlainDestination<NullSink>>(
          std::make_unique<NullSink>(worker_.geometry));
      break;
    case Kind::kServer: {
      NbdSink::Options how;
      how.tuning = options_.nbd;
      how.destination_is_zero = options_.destination_is_zero;
      how.granularity = worker_.geometry.cluster_size();
      how.update = is_update();
      uint64_t all = size;
      if (is_stream()) {
        // The whole disk of the server: the part past the end of the stream becomes zeros.
        ASSIGN_OR_RETURN(const auto server, NbdSource::open(*server_, nbd_source(), stop_));
        all = server->size();
      }
      ASSIGN_OR_RETURN(auto sink, NbdSink::open(*server_, how, all, stop_));
      worker_.geometry = sink->geometry();
      destination = std::make_unique<PlainDestination<NbdSink>>(std::move(sink));
      break;
    }
    case Kind::kFile:
    case Kind::kDevice:
      if (is_update()) {
        ASSIGN_OR_RETURN(auto update, UpdateDestination::open(name, size));
        worker_.geometry = update->sink().geometry();
        destination = std::move(update);
        break;
      }
      if (format_ == Format::kRaw) {
        ASSIGN_OR_RETURN(auto raw,
                         RawDestination::create(name, options_.overwrite, is_stream() ? 0 : size,
                                                worker_.geometry, options_.image.preallocation,
                                                options_.destination_is_zero));
        if (const auto* file = raw->target().file(); file && !is_stream())
          RETURN_IF_ERROR(check_raw_room(source_->get(), worker_, *file, stop_));
        destination = std::move(raw);
        break;
      }
      ASSIGN_OR_RETURN(auto image, Qcow2Destination::create(name, options_.overwrite, build_,
                                                            options_.image.preallocation));
      if (image->target().file() && !is_stream() && build_.data_file.empty())
        RETURN_IF_ERROR(
            check_room(source_->get(), build_, worker_, *image->target().file(), stop_));
      destination = std::move(image);
  }
  return destination;
}

Result<void> CopyJob::run_part(Sink& sink, const Pipeline::Options& how) {
  Pipeline pipeline(source_->get(), sink, progress_, stop_, how);
  RETURN_IF_ERROR(pipeline.run());
  summary_.data_clusters += pipeline.counts().data;
  summary_.compressed_clusters += pipeline.counts().compressed;
  summary_.passed_through_clusters += pipeline.counts().passed_through;
  summary_.found_zero_clusters += pipeline.counts().found_zero;
  return {};
}

Result<void> CopyJob::run_pipeline(Sink& sink) {
  summary_.data_clusters = 0;
  summary_.compressed_clusters = 0;
  summary_.passed_through_clusters = 0;
  summary_.found_zero_clusters = 0;
  Pipeline::Options how = plan();
  if (options_.late) {
    how.end = options_.late->begin;
    RETURN_IF_ERROR(run_part(sink, how));
    RETURN_IF_ERROR(go_on_with_late_source());
    how.begin = how.end;
    how.end = Source::kUnknownSize;
  }
  return run_part(sink, how);
}

Result<void> CopyJob::check_late_source() {
  if (!options_.late) return {};
  const uint64_t begin = options_.late->begin;
  if (!source_->local() || kind_ != Kind::kFile || options_.dry_run || options_.salvage ||
      begin > source_->get().size() || begin % worker_.geometry.cluster_size() != 0)
    return fail(Error::invalid("the rest of the source cannot be a late one"));
  return {};
}

Result<void> CopyJob::go_on_with_late_source() {
  ASSIGN_OR_RETURN(auto rest, options_.late->open());
  if (rest->size() != source_->get().size())
    return fail(Error::invalid(rest->name() + ": has another size than " + options_.source));
  source_ = AnySource::of(std::move(rest));
  if (options_.unused) source_->get().leave_out(options_.unused);
  if (keeps_backing()) RETURN_IF_ERROR(keep_backing_file());
  return {};
}

// `path`: of the copy, if it is a file or device.
Result<void> CopyJob::verify_copy(const std::string& path) {
  const Pipeline::Options how = plan();
  if (kind_ == Kind::kServer) {
    ASSIGN_OR_RETURN(const auto copy, NbdSource::open(*server_, nbd_source(), stop_));
    ASSIGN_OR_RETURN(summary_.verified, verify(*digests_, *copy, how, progress_, cancel_));
    return {};
  }
  forget_cached(path);
  const LocalSource::Options own{format_, "", false, {options_.trust.names.for_own_image(), {}}};
  // The copy may have no name yet.
  ASSIGN_OR_RETURN(const auto copy,
                   with_context(LocalSource::open(path, own), options_.destination));
  if (keeps_backing()) {
    ASSIGN_OR_RETURN(const std::string base, backing_path());
    RETURN_IF_ERROR(copy->keep_backing(base, worker_.geometry.cluster_size()));
  }
  auto verified = verify(*digests_, *copy, how, progress_, cancel_);
  // Messages name the path that was read, which may differ from the destination.
  if (path != options_.destination)
    verified = with_context(std::move(verified), options_.destination);
  ASSIGN_OR_RETURN(summary_.verified, std::move(verified));
  return {};
}

Result<void> CopyJob::check() {
  RETURN_IF_ERROR(open_source());
  RETURN_IF_ERROR(look_at_destination());
  RETURN_IF_ERROR(decide());
  if (kind_ != Kind::kFile || is_update()) return {};
  // A file that is dropped before it is complete leaves nothing behind.
  if (format_ == Format::kRaw)
    return RawDestination::create(options_.destination, options_.overwrite, 0, worker_.geometry,
                                  Preallocation::kOff, false)
        .map([](const auto&) {});
  return Qcow2Destination::create(options_.destination, options_.overwrite, build_,
                                  options_.image.preallocation)
      .map([](const auto&) {});
}

Result<CopySummary> CopyJob::run() {
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(open_source());
  RETURN_IF_ERROR(look_at_destination());
  RETURN_IF_ERROR(decide());
  RETURN_IF_ERROR(check_late_source());
  if (source_->local()) {
    ASSIGN_OR_RETURN(summary_.source, size_of(*source_->local()));
  }
  RETURN_IF_ERROR(check_device());
  if (options_.dry_run) return foretell();
  {
    ASSIGN_OR_RETURN(const auto destination, open_destination());
    std::optional<DigestSink> digesting;
    if (digests_) digesting.emplace(destination->sink(), *digests_, worker_.compression);
    RETURN_IF_ERROR(run_pipeline(digesting ? static_cast<Sink&>(*digesting) : destination->sink()));
    const uint64_t size = source_->get().size();
    if (source_->stream()) {
      RETURN_IF_ERROR(destination->set_size(size));
      if (digests_) digests_->end_at(size);
    }
    if (cancel_.requested()) return fail(Error::cancelled());
    RETURN_IF_ERROR(destination->write_out());
    progress_.update(size, size);
    // If possible, verifies before the copy gets its name, which may belong to a good file.
    const auto early = destination->path_to_read();
    if (options_.verify && early) RETURN_IF_ERROR(verify_copy(*early));
    ASSIGN_OR_RETURN(Descriptor file, destination->share());
    ASSIGN_OR_RETURN(summary_.destination, destination->measure());
    RETURN_IF_ERROR(destination->complete());
    if (file) summary_.file = std::make_shared<Descriptor>(std::move(file));
  }
  if (options_.verify && !summary_.verified) RETURN_IF_ERROR(verify_copy(options_.destination));

  sum_up(start);
  return summary_;
}

void CopyJob::sum_up(std::chrono::steady_clock::time_point start) {
  if (source_->local() && source_->local()->losses())
    summary_.lost = source_->local()->losses()->list(source_->get().size());
  summary_.format = format_;
  summary_.virtual_size = source_->get().size();
  summary_.cluster_size = worker_.geometry.cluster_size();
  summary_.zero_clusters = worker_.geometry.clusters_for(summary_.virtual_size) -
                           summary_.data_clusters - summary_.compressed_clusters;
  summary_.elapsed = std::chrono::steady_clock::now() - start;
}

// Checks before the first write that a device is large enough. If all clusters uncompressed would
// not fit, a dry run finds the exact size of the image.
Result<void> CopyJob::check_device() {
  if (is_stream() || is_update()) return {};
  Source& from = source_->get();
  const std::string& name = options_.destination;
  if (kind_ == Kind::kFile && !build_.data_file.empty()) {
    ASSIGN_OR_RETURN(const std::string data, qcow2::resolve_name(name, build_.data_file));
    std::error_code ignored;
    if (std::filesystem::is_block_file(data, ignored))
      return check_device_place(data, build_.rounded_size(), "a disk");
  }
  if (kind_ != Kind::kDevice) return {};
  if (format_ == Format::kRaw) return check_device_place(name, from.size(), "a disk");
  uint64_t live = 0;
  if (build_.data_file.empty()) {
    ASSIGN_OR_RETURN(live, count_live_clusters(from, worker_.geometry, stop_));
  }
  const uint64_t most =
      qcow2::Builder::metadata_bytes(build_, live) + (live << worker_.geometry.cluster_bits());
  if (check_device_place(name, most, "an image")) return {};
  progress_.begin(Phase::kLayout);
  ASSIGN_OR_RETURN(const uint64_t needed, dry_run());
  progress_.begin(Phase::kCopy);
  return check_device_place(name, needed, "an image");
}

// Does everything except writing, and predicts the result.
Result<CopySummary> CopyJob::foretell() {
  const auto start = std::chrono::steady_clock::now();
  if (format_ == Format::kQcow2 && !is_update()) {
    ASSIGN_OR_RETURN(summary_.foretold, dry_run());
  } else {
    NullSink sink(worker_.geometry);
    RETURN_IF_ERROR(run_pipeline(sink));
    summary_.foretold = summary_.data_clusters * worker_.geometry.cluster_size();
  }
  if (cancel_.requested()) return fail(Error::cancelled());
  progress_.update(source_->get().size(), source_->get().size());
  sum_up(start);
  if (kind_ == Kind::kFile && !is_update())
    RETURN_IF_ERROR(check_file_place(options_.destination, options_.overwrite, *summary_.foretold));
  return summary_;
}

// Returns the length of the image, from a dry run.
Result<uint64_t> CopyJob::dry_run() {
  DryStorage out(0);
  DryStorage data(0);
  const Qcow2Sink::Options how{build_, options_.image.preallocation != Preallocation::kOff,
                               qcow2::Builder::Gaps::kLeave, true};
  ASSIGN_OR_RETURN(const auto sink,
                   Qcow2Sink::create(out, build_.data_file.empty() ? nullptr : &data, how));
  RETURN_IF_ERROR(run_pipeline(*sink));
  if (source_->stream()) {
    build_.size = source_->get().size();
    RETURN_IF_ERROR(sink->shrink_to(build_.size));
  }
  if (cancel_.requested()) return fail(Error::cancelled());
  RETURN_IF_ERROR(sink->finish());
  return out.size();
}

}  // namespace vc::copy
