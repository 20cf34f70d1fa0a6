#include "qcow2/relocate/image_compress.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/parallel.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/refcount_block.h"
#include "qcow2/refcounts/refcount_writer.h"
#include "qcow2/relocate/unknown_autoclear.h"

namespace vc::qcow2 {

namespace {

// Narrower refcounts cannot count the streams of a cluster.
constexpr unsigned kLeastRefcountOrder = 4;
// A batch moves if at least this part of its clusters becomes free.
constexpr uint64_t kLeastBatchGain = 128;
// A batch in which nothing new is compressed moves if at least this many clusters become free:
// ImageShrink leaves a few gaps between streams, and they must not be packed again by each run.
constexpr uint64_t kLeastPackingGain = 4;
// Plain clusters stay if there are more than this many for each cluster of streams.
constexpr uint64_t kMostPlain = 16;

}  // namespace

Result<void> ImageCompress::check(const std::string& name, const Header& header,
                                  const Compression& how) {
  const auto refuse = [&](const std::string& why) {
    return fail(Error::unsupported(name + ": cannot be compressed in place: " + why));
  };
  if (header.has_data_file())
    return refuse("its data is in an external data file, which has no compressed clusters");
  if (header.crypt_method != CryptMethod::kNone)
    return refuse(
        "it is encrypted, and QCOW2 has no clusters that are both encrypted and compressed");
  if (header.refcount_order < kLeastRefcountOrder)
    return refuse(fmt::format(
        "its refcounts have {} bit{}, too few to count several compressed clusters in one place: "
        "virt-compact copy -c makes a fresh image",
        header.refcount_bits(), header.refcount_bits() == 1 ? "" : "s"));
  if (how.type && *how.type != header.compression_type)
    return refuse(fmt::format(
        "its header says {}, for all of its clusters, and {} was asked for: omit the type, or make "
        "a fresh image with virt-compact copy -c",
        to_string(header.compression_type), to_string(*how.type)));
  return {};
}

Result<std::unique_ptr<ImageCompress>> ImageCompress::open(std::shared_ptr<Storage> storage,
                                                           Options options) {
  ASSIGN_OR_RETURN(Header header, Header::read(*storage));
  RETURN_IF_ERROR(check(storage->name(), header, options.compression));
  options.compression.type = header.compression_type;
  if (options.threads == 0) options.threads = std::max(std::thread::hardware_concurrency(), 1u);
  ASSIGN_OR_RETURN(auto image, Image::open(storage, std::move(header), nullptr,
                                           std::make_shared<TableCache>(0)));
  std::unique_ptr<ImageCompress> it(
      new ImageCompress(std::move(storage), std::move(image), std::move(options)));
  ASSIGN_OR_RETURN(it->refcounts_, Refcounts::load(it->storage_, it->image_->header()));
  // A block device is longer than its image: clusters past the end of this one are free.
  ASSIGN_OR_RETURN(const HostCluster end, it->refcounts_->end_of_use());
  it->refcounts_->truncate(end);
  it->moves_ =
      std::make_unique<ClusterMoves>(it->storage_, it->storage_, it->geometry_, *it->refcounts_);
  ASSIGN_OR_RETURN(it->references_, References::find(*it->image_));
  for (unsigned i = 0; i < it->options_.threads; ++i) {
    ASSIGN_OR_RETURN(Recompressor worker,
                     Recompressor::create(*it->image_, it->options_.compression));
    it->workers_.push_back(std::move(worker));
  }
  return it;
}

Result<void> ImageCompress::start(const Cancel& cancel) {
  cancel_ = &cancel;
  ASSIGN_OR_RETURN(end_, refcounts_->end_of_use());
  const unsigned bits = CompressedDescriptor::offset_bits(geometry_.cluster_bits());
  if (((geometry_.start_of(end_).value() + 2 * options_.batch_bytes) >> bits) != 0)
    return fail(Error::unsupported(image_->name() + ": is too long for compressed clusters"));
  done_ = HostOffset(0);
  // Leaves spare counts, for a snapshot that becomes the active disk.
  packer_.emplace(*storage_, *refcounts_, geometry_, most_times());
  return {};
}

uint64_t ImageCompress::most_times() const {
  return max_refcount(image_->header().refcount_order) / 2;
}

Result<uint64_t> ImageCompress::predict(const Cancel& cancel) {
  RETURN_IF_ERROR(start(cancel));
  RETURN_IF_ERROR(visit_all());
  return freed_;
}

Result<void> ImageCompress::run(const Cancel& cancel) {
  RETURN_IF_ERROR(start(cancel));
  writes_ = true;
  RETURN_IF_ERROR(visit_all());
  return write_refcounts(*storage_, *refcounts_);
}

Result<void> ImageCompress::visit_all() {
  return visit_windows(*references_, geometry_, end_, options_.most_pointers,
                       [this](const PointerWindow& window,
                              std::span<const ClusterPointer> pointers) -> Result<bool> {
                         RETURN_IF_ERROR(visit_window(window, pointers));
                         return !stopped_;
                       });
}

// Visits batches of clusters.
Result<void> ImageCompress::visit_window(const PointerWindow& window,
                                         std::span<const ClusterPointer> pointers) {
  std::vector<StoredCluster> batch;
  uint64_t bytes = 0;
  while (!pointers.empty() && !stopped_) {
    batch.push_back(take_first(geometry_, window, pointers));
    batch.back().fate = batch.back().compressed ? Fate::kStream : Fate::kPlain;
    bytes += batch.back().length;
    if (bytes < options_.batch_bytes && !pointers.empty()) continue;
    RETURN_IF_ERROR(visit_batch(batch, pointers.empty() ? geometry_.start_of(window.bound())
                                                        : window.target(pointers.front())));
    batch.clear();
    bytes = 0;
  }
  return {};
}

// Returns whether all references are known.  Otherwise the place would not become free.
Result<bool> ImageCompress::can_move(const StoredCluster& cluster) {
  if (cluster.times > most_times()) return false;
  if (options_.staying && options_.staying->touches(geometry_, cluster.at, cluster.length))
    return false;
  if (cluster.compressed) return true;
  const HostCluster host = geometry_.host_cluster_of(cluster.at);
  ASSIGN_OR_RETURN(const uint64_t count, refcounts_->get(host));
  if (count < cluster.times) RETURN_IF_ERROR(moves_->require_all_known(host, cluster.times));
  return count == cluster.times;
}

// Returns the clusters that become free if `batch` moves, whose successor begins at `next`.
uint64_t ImageCompress::own_clusters(std::span<const StoredCluster> batch, HostOffset next) const {
  uint64_t count = 0;
  HostCluster from(geometry_.clusters_for(done_.value()));
  for (const StoredCluster& it : batch) {
    const HostCluster last = geometry_.host_cluster_of(it.at + (it.length - 1));
    const HostCluster end = std::min(last + 1, geometry_.host_cluster_of(next));
    const HostCluster first = std::max(from, geometry_.host_cluster_of(it.at));
    if (it.fate != Fate::kStays && end > first) count += end - first;
    from = std::max(from, last + 1);
  }
  return count;
}

bool ImageCompress::gains(uint64_t now, uint64_t then, bool compresses) {
  const uint64_t least = compresses ? 1 : kLeastPackingGain;
  return now >= then + least && (now - then) * kLeastBatchGain >= now;
}

Result<void> ImageCompress::visit_batch(std::span<StoredCluster> batch, HostOffset next) {
  stopped_ = cancel_->requested();
  if (stopped_) return {};
  for (StoredCluster& it : batch) {
    ASSIGN_OR_RETURN(const bool movable, can_move(it));
    if (movable) continue;
    it.fate = Fate::kStays;
    fixed_ += it.compressed ? 0 : 1;
  }
  ASSIGN_OR_RETURN(const bool moves, plan(batch, next));
  if (stopped_) return {};
  if (moves && writes_) {
    RETURN_IF_ERROR(write_batch(batch));
  } else if (!moves) {
    done_ = std::max(done_, batch.back().at + batch.back().length);
  }
  if (options_.progress)
    options_.progress(batch.back().at.value(), geometry_.start_of(end_).value());
  return {};
}

// Decides the fate of each cluster.  Returns false if the batch stays.
Result<bool> ImageCompress::plan(std::span<StoredCluster> batch, HostOffset next) {
  // The data of a stream may end anywhere in its last sector.
  uint64_t least = 0;
  for (const StoredCluster& it : batch)
    if (it.fate == Fate::kStream)
      least += it.length - std::min(it.length - 1, Geometry::kSectorSize - 1);
  const bool streams_only =
      std::ranges::all_of(batch, [](const StoredCluster& it) { return it.fate != Fate::kPlain; });
  if (streams_only && !gains(own_clusters(batch, next), geometry_.clusters_for(least), false))
    return false;

  RETURN_IF_ERROR(decide(batch));
  stopped_ = cancel_->requested();
  uint64_t stream_bytes = 0;
  uint64_t plain = 0;
  bool compresses = false;
  for (const StoredCluster& it : batch) {
    compresses |= it.fate == Fate::kZero || (it.fate == Fate::kStream && !it.compressed);
    stream_bytes += it.stream.size();
    plain += it.fate == Fate::kPlain ? 1 : 0;
  }
  const uint64_t packed = geometry_.clusters_for(stream_bytes);
  const uint64_t now = own_clusters(batch, next);
  if (stopped_ || !gains(now, packed + plain, compresses)) return false;
  freed_ += now - (packed + plain);
  for (StoredCluster& it : batch) {
    if (it.fate == Fate::kStream && !it.compressed) compressed_ += geometry_.cluster_size();
    if (it.fate == Fate::kPlain && plain > kMostPlain * packed) it.fate = Fate::kStays;
  }
  return true;
}

// Compresses, on all threads.
Result<void> ImageCompress::decide(std::span<StoredCluster> batch) {
  std::atomic<size_t> next = 0;
  std::vector<Result<void>> results(workers_.size());
  parallel_for(workers_.size(), options_.threads, [&](size_t worker) {
    for (size_t i = next++; i < batch.size() && !cancel_->requested(); i = next++) {
      if (batch[i].fate == Fate::kStays) continue;
      results[worker] = workers_[worker].decide(batch[i]);
      if (!results[worker]) return;
    }
  });
  for (auto& it : results) RETURN_IF_ERROR(std::move(it));
  return {};
}

Result<void> ImageCompress::write_batch(std::span<const StoredCluster> batch) {
  RETURN_IF_ERROR(clear_unknown_autoclear(*storage_, image_->header()));
  packer_->set_limit(geometry_.host_cluster_of(batch.front().at));
  for (const StoredCluster& it : batch) {
    if (it.fate == Fate::kStream) RETURN_IF_ERROR(write_stream(it));
    if (it.fate == Fate::kZero) write_zeros(it);
  }
  for (const StoredCluster& it : batch)
    if (it.fate == Fate::kPlain) RETURN_IF_ERROR(move_plain(it));
  return moves_->commit();
}

// Returns whether an entry of a plain cluster reads as zeros, although the cluster has data.
bool ImageCompress::reads_zeros(const StoredCluster& cluster, const ClusterPointer& pointer) const {
  return !cluster.compressed && !geometry_.extended_l2() && (pointer.word & kEntryZero) != 0;
}

Result<void> ImageCompress::write_stream(const StoredCluster& cluster) {
  const uint64_t length = cluster.stream.size();
  uint64_t times = 0;
  for (const ClusterPointer& it : cluster.pointers)
    if (!reads_zeros(cluster, it)) times += it.times;
  ASSIGN_OR_RETURN(const HostOffset at, packer_->place_stream(length, times));
  RETURN_IF_ERROR(moves_->add_references(at, length, times));
  moves_->write(at, cluster.stream);
  moves_->drop_references(cluster.at, cluster.length, cluster.times);
  const L2Entry entry{CompressedDescriptor::covering(at, length).encode(geometry_.cluster_bits()),
                      0};
  for (const ClusterPointer& it : cluster.pointers)
    point(cluster, it, reads_zeros(cluster, it) ? zero_entry(image_->header()) : entry);
  return {};
}

void ImageCompress::write_zeros(const StoredCluster& cluster) {
  moves_->drop_references(cluster.at, cluster.length, cluster.times);
  for (const ClusterPointer& it : cluster.pointers)
    point(cluster, it, zero_entry(image_->header()));
}

Result<void> ImageCompress::move_plain(const StoredCluster& cluster) {
  ASSIGN_OR_RETURN(const HostCluster to, packer_->place_cluster());
  RETURN_IF_ERROR(moves_->move({geometry_.host_cluster_of(cluster.at), 1}, to, cluster.times,
                               ClusterMoves::Content::kGuestData));
  for (const ClusterPointer& it : cluster.pointers)
    moves_->point(it.at, it.word, (it.word & ~kEntryOffsetMask) | geometry_.start_of(to).value());
  return {};
}

// Both words of an extended entry are in one sector, so that they change together.
void ImageCompress::point(const StoredCluster& cluster, const ClusterPointer& pointer,
                          L2Entry entry) {
  moves_->point(pointer.at, pointer.word, entry.word);
  if (geometry_.extended_l2() && !cluster.compressed)
    moves_->point(pointer.at + 8, cluster.bitmap, entry.bitmap);
}

}  // namespace vc::qcow2
