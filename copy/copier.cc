#include "copy/copier.h"

#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <thread>

#include "copy/local_source.h"
#include "copy/nbd_source.h"
#include "copy/nbd_uri.h"
#include "copy/pipeline.h"
#include "copy/qcow2_sink.h"
#include "copy/room.h"
#include "copy/stop.h"
#include "qcow2/output_file.h"

namespace copy {

using qcow2::Error;
using qcow2::FileStorage;
using qcow2::Result;

namespace {

constexpr unsigned kDefaultClusterBits = 16;
constexpr uint64_t kChunkSize = 1 << 20;
// What chunks and codecs together may take, in bytes: the memory of a copy does not depend on the
// disk, and on the number of processors only so far.
constexpr uint64_t kMemory = 80 << 20;

// A source of either kind; one of the two is set.
struct AnySource {
  std::unique_ptr<LocalSource> local;
  std::unique_ptr<NbdSource> nbd;

  Source& get() const {
    if (local) return *local;
    return *nbd;
  }
};

Result<AnySource> open_source(const CopyOptions& options, const Stop& stop) {
  AnySource source;
  ASSIGN_OR_RETURN(const bool is_nbd, is_nbd_uri(options.source));
  if (!is_nbd) {
    ASSIGN_OR_RETURN(source.local,
                     LocalSource::open(options.source, {options.source_format, options.snapshot,
                                                        options.force_share}));
    return source;
  }
  if (options.source_format == qcow2::Format::kQcow2)
    return qcow2::fail(Error::unsupported(options.source +
                                          ": a QCOW2 file behind NBD is not decoded here: serve it "
                                          "with the nbdkit qcow2 plugin on the other side"));
  if (!options.snapshot.empty())
    return qcow2::fail(Error::invalid(
        options.source +
        ": a snapshot is chosen by the export name of the URI: snapshot:" + options.snapshot));
  NbdSource::Options nbd;
  nbd.connections = std::max(options.connections, 1u);
  nbd.requests = std::max(options.requests, 1u);
  nbd.request_size = options.request_size;
  ASSIGN_OR_RETURN(source.nbd, NbdSource::open(options.source, nbd, stop));
  return source;
}

// The destination must be none of the files that are read, whatever name it goes by.
Result<void> check_not_source(const LocalSource& source, const std::string& destination) {
  struct stat status {};
  if (::stat(destination.c_str(), &status) != 0) return {};
  const FileStorage::Identity identity{status.st_dev, status.st_ino};
  for (const auto& file : source.chain().files())
    if (!file->is_block_device() && file->identity() == identity)
      return qcow2::fail(Error::invalid(
          destination + (file->name() == destination || file == source.chain().files().front()
                             ? ": source and destination are the same file"
                             : ": the source reads from this file (as " + file->name() + ")")));
  return {};
}

Result<CopySummary::FileSize> size_of(const LocalSource& source) {
  CopySummary::FileSize size;
  for (const auto& file : source.chain().files()) {
    ASSIGN_OR_RETURN(const uint64_t length, file->size());
    ASSIGN_OR_RETURN(const uint64_t blocks, file->blocks());
    size.length += length;
    size.blocks += file->is_block_device() ? length : blocks;
  }
  return size;
}

Pipeline::Options plan(const CopyOptions& options, const AnySource& source,
                       const ClusterWorker::Options& worker) {
  Pipeline::Options plan;
  plan.worker = worker;
  // A compressed cluster of the source should not be cut in two: it would be decoded twice.  Nor
  // should a request to a server.
  plan.chunk_size =
      std::max({kChunkSize, worker.geometry.cluster_size(), source.get().cluster_size().value_or(0),
                source.nbd ? options.request_size : 0});
  const uint64_t each_chunk = plan.chunk_size * (worker.compression ? 2 : 1);
  // A codec's tables, and a stream on its way through.
  const uint64_t each_thread = worker.compression ? 5 * worker.geometry.cluster_size() : 0;
  const uint64_t most_threads = std::max<uint64_t>(kMemory / (2 * each_chunk + each_thread), 1);
  plan.threads = options.threads;
  if (plan.threads == 0)
    plan.threads = static_cast<unsigned>(
        std::clamp<uint64_t>(std::thread::hardware_concurrency(), 1, most_threads));
  uint64_t chunks = uint64_t{plan.threads} * 2 + 1;
  if (source.nbd)
    chunks +=
        source.nbd->connections() * (options.requests * options.request_size / plan.chunk_size + 1);
  const uint64_t for_threads = std::min(kMemory, plan.threads * each_thread);
  plan.chunks = std::clamp<uint64_t>((kMemory - for_threads) / each_chunk, 2, chunks);
  return plan;
}

}  // namespace

Result<CopySummary> copy(const CopyOptions& options, Progress& progress, const Cancel& cancel) {
  const auto start = std::chrono::steady_clock::now();
  Stop stop(cancel);
  ASSIGN_OR_RETURN(const AnySource source, open_source(options, stop));
  Source& from = source.get();
  CopySummary summary;
  if (source.local) {
    RETURN_IF_ERROR(check_not_source(*source.local, options.destination));
    ASSIGN_OR_RETURN(summary.source, size_of(*source.local));
  }

  qcow2::BuildOptions build;
  build.size = from.size();
  build.cluster_bits = kDefaultClusterBits;
  if (const auto size = from.cluster_size())
    build.cluster_bits = static_cast<unsigned>(std::countr_zero(*size));
  if (options.cluster_bits) build.cluster_bits = *options.cluster_bits;
  build.compression_type = options.compression.value_or(qcow2::CompressionType::kDeflate);

  ClusterWorker::Options worker;
  worker.geometry = qcow2::Geometry(build.cluster_bits, build.extended_l2);
  worker.compression = options.compression;
  worker.level = options.compression_level;
  // Says what is wrong with a level before anything else starts.
  RETURN_IF_ERROR(ClusterWorker::create(worker));

  ASSIGN_OR_RETURN(const auto out,
                   qcow2::OutputFile::create(options.destination, options.overwrite));
  ASSIGN_OR_RETURN(const auto sink, Qcow2Sink::create(*out, nullptr, {build, false}));
  RETURN_IF_ERROR(check_room(from, build, worker, *out, stop));

  Pipeline pipeline(from, *sink, progress, stop, plan(options, source, worker));
  RETURN_IF_ERROR(source.local ? pipeline.run(*source.local) : pipeline.run(*source.nbd));
  RETURN_IF_ERROR(sink->finish());
  if (cancel.requested()) return qcow2::fail(Error::cancelled());
  RETURN_IF_ERROR(out->commit());
  progress.update(from.size(), from.size());

  ASSIGN_OR_RETURN(const auto size, out->measure());
  summary.destination = {size.length, size.blocks};
  summary.virtual_size = from.size();
  summary.cluster_size = worker.geometry.cluster_size();
  summary.data_clusters = pipeline.counts().data;
  summary.compressed_clusters = pipeline.counts().compressed;
  summary.passed_through_clusters = pipeline.counts().passed_through;
  summary.found_zero_clusters = pipeline.counts().found_zero;
  summary.zero_clusters = worker.geometry.clusters_for(from.size()) - summary.data_clusters -
                          summary.compressed_clusters;
  summary.elapsed = std::chrono::steady_clock::now() - start;
  return summary;
}

}  // namespace copy
