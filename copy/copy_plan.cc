#include "copy/copy_plan.h"

#include <algorithm>
#include <bit>
#include <thread>

#include "copy/encryption_plan.h"
#include "qcow2/read/chain.h"

namespace vc::copy {

using qcow2::Format;
using qcow2::Geometry;

namespace {

constexpr uint64_t kChunkSize = 1 << 20;
// Clones are calls, not bytes: fewer and longer ones cost less.
constexpr uint64_t kCloneChunkSize = 8 << 20;
// Memory limit of chunks and codecs together, bytes. The memory of a copy does not depend on the
// size of the disk, and depends on the number of processors only up to this limit.
constexpr uint64_t kMemory = 80 << 20;

// Returns the codec of clusters that stay compressed. nullopt if no clusters can.
std::optional<qcow2::CompressionType> kept_compression(const CopyOptions& options, Format format,
                                                       const qcow2::Image* image) {
  if (!image || format != Format::kQcow2 || options.is_update() || !options.image.data_file.empty())
    return std::nullopt;
  // Version 2 supports only zlib.
  if (options.image.version.value_or(3) < 3) return qcow2::CompressionType::kDeflate;
  return options.image.compression_type.value_or(image->header().compression_type);
}

ClusterWorker::Options worker_options(const CopyOptions& options, Format format,
                                      const qcow2::Image* image) {
  ClusterWorker::Options worker;
  worker.compression = options.compression;
  if (format != Format::kQcow2) worker.compression.type.reset();
  if (!worker.compression && options.keep_compression) {
    worker.compression.type = kept_compression(options, format, image);
    worker.keep_plain = true;
  }
  return worker;
}

unsigned thread_count(const CopyOptions& options, DestinationType::Kind kind, uint64_t most) {
  if (options.threads != 0) return options.threads;
  // Threads that write to a server mostly wait for it.
  const unsigned wanted =
      std::max(std::thread::hardware_concurrency(),
               kind == DestinationType::Kind::kServer ? options.nbd.connections : 1);
  return static_cast<unsigned>(std::clamp<uint64_t>(wanted, 1, most));
}

Container container_of(const CopyOptions& options, const DestinationType& destination) {
  if (options.is_update() || destination.kind == DestinationType::Kind::kNull)
    return Container::kNothing;
  return destination.format == Format::kQcow2 ? Container::kQcow2 : Container::kPlain;
}

// Decides the encryption, which excludes compression.
Result<void> choose_encryption(const CopyOptions& options, const Source& source, CopyPlan& plan) {
  ASSIGN_OR_RETURN(plan.build.encryption, plan_encryption(options.image.encryption, source,
                                                          container_of(options, plan.destination)));
  if (!plan.build.encryption) return {};
  if (options.compression)
    return fail(Error::invalid(
        options.destination +
        ": would be encrypted, and an encrypted image cannot be compressed, as in QEMU: omit the "
        "compression, or allow unencrypted data with --decrypt"));
  plan.worker.compression.type.reset();
  plan.worker.keep_plain = false;
  if (plan.build.version < 3 && options.image.preallocation != Preallocation::kOff)
    return fail(Error::invalid("preallocation of an encrypted image needs compat=1.1"));
  return with_context(qcow2::check(plan.build), options.destination);
}

}  // namespace

Result<CopyPlan> CopyPlan::create(const CopyOptions& options, const DestinationType& destination,
                                  Source& source) {
  CopyPlan plan;
  plan.destination = destination;
  plan.worker = worker_options(options, destination.format, source.image());
  if (destination.format == Format::kRaw) {
    const uint64_t hole = hole_size(options, destination.kind == DestinationType::Kind::kServer);
    plan.worker.geometry = Geometry(static_cast<unsigned>(std::countr_zero(hole)), false);
  } else {
    ASSIGN_OR_RETURN(plan.build, with_context(build_options(options.image, source, source.image(),
                                                            plan.worker.compression.type),
                                              options.destination));
    plan.worker.geometry = plan.build.geometry();
    if (options.keeps_backing()) {
      ASSIGN_OR_RETURN(const std::string base, backing_path(options, destination));
      ASSIGN_OR_RETURN(const std::string format,
                       source.keep_backing(base, plan.worker.geometry.cluster_size()));
      if (plan.build.backing_format.empty()) plan.build.backing_format = format;
    }
  }
  RETURN_IF_ERROR(choose_encryption(options, source, plan));
  // Reports an invalid level before anything else starts.
  RETURN_IF_ERROR(ClusterWorker::create(plan.worker));
  return plan;
}

Pipeline::Options CopyPlan::pipeline(const CopyOptions& options, const Source& source) const {
  Pipeline::Options plan;
  plan.worker = worker;
  if (worker.cloning) plan.unit = worker.cloning->group();
  plan.explicit_zeros = options.keeps_backing() || options.is_update();
  // A chunk should hold whole compressed clusters of the source, which would otherwise be decoded
  // twice, and whole requests to a server.
  plan.chunk_size =
      std::max({kChunkSize, worker.geometry.cluster_size(), source.cluster_size().value_or(0),
                source.request_size(), destination.server ? options.nbd.request_size : 0});
  if (worker.cloning) plan.chunk_size = std::max(plan.chunk_size, kCloneChunkSize);
  const uint64_t each_chunk = plan.chunk_size * (worker.compression ? 2 : 1);
  // a codec's tables, and a stream in transit
  const uint64_t each_thread = worker.compression ? 5 * worker.geometry.cluster_size() : 0;
  const uint64_t most_threads = std::max<uint64_t>(kMemory / (2 * each_chunk + each_thread), 1);
  plan.threads = thread_count(options, destination.kind, most_threads);
  const uint64_t chunks = uint64_t{plan.threads} * 2 + 1 + source.chunks_in_flight(plan.chunk_size);
  const uint64_t for_threads = std::min(kMemory, plan.threads * each_thread);
  plan.chunks = std::clamp<uint64_t>((kMemory - for_threads) / each_chunk, 2, chunks);
  return plan;
}

Result<std::string> backing_path(const CopyOptions& options, const DestinationType& destination) {
  const bool is_file = destination.kind == DestinationType::Kind::kFile;
  return with_context(
      qcow2::resolve_name(is_file ? options.destination : "", options.image.backing_file),
      "backing file");
}

}  // namespace vc::copy
