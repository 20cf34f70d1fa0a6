#include "qcow2/relocate/image_zeros.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "base/byte_order.h"
#include "base/parallel.h"
#include "base/zero_bytes.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/refcounts/refcount_writer.h"
#include "qcow2/relocate/unknown_autoclear.h"
#include "storage/padded_read.h"

namespace vc::qcow2 {

namespace {

// Words that are written between two flushes.
constexpr uint64_t kMostPending = 1 << 16;

}  // namespace

bool ImageZeros::can_remove(const Header& header) {
  if (header.has_data_file() || header.crypt_method == CryptMethod::kAes) return false;
  // Version 2 has no entries that read as zeros without data, if there is a backing file.
  return header.version >= 3 || header.backing_file.empty();
}

Result<std::unique_ptr<ImageZeros>> ImageZeros::open(std::shared_ptr<Storage> storage,
                                                     std::shared_ptr<const Encryption> encryption,
                                                     Options options) {
  ASSIGN_OR_RETURN(Header header, Header::read(*storage, Header::Purpose::kUnlock));
  if (options.threads == 0) options.threads = std::max(std::thread::hardware_concurrency(), 1u);
  ASSIGN_OR_RETURN(auto image, Image::open(storage, std::move(header), nullptr,
                                           std::make_shared<TableCache>(0), std::move(encryption)));
  std::unique_ptr<ImageZeros> it(
      new ImageZeros(std::move(storage), std::move(image), std::move(options)));
  ASSIGN_OR_RETURN(it->refcounts_, Refcounts::load(it->storage_, it->image_->header()));
  it->moves_ =
      std::make_unique<ClusterMoves>(it->storage_, it->storage_, it->geometry_, *it->refcounts_);
  ASSIGN_OR_RETURN(it->references_, References::find(*it->image_));
  return it;
}

Result<void> ImageZeros::run(const Cancel& cancel) {
  cancel_ = &cancel;
  ASSIGN_OR_RETURN(end_, refcounts_->end_of_use());
  RETURN_IF_ERROR(
      visit_windows(*references_, geometry_, end_, options_.most_pointers,
                    [this](const PointerWindow& window, std::span<const ClusterPointer> pointers) {
                      return visit_window(window, pointers);
                    }));
  // Lowers the refcounts after the last flush.
  if (!has_written_) return {};
  return write_refcounts(*storage_, *refcounts_);
}

// Returns false after a cancellation.
Result<bool> ImageZeros::visit_window(const PointerWindow& window,
                                      std::span<const ClusterPointer> pointers) {
  std::vector<Candidate> batch;
  uint64_t bytes = 0;
  while (!pointers.empty() && !stopped_) {
    StoredCluster cluster = take_first(geometry_, window, pointers);
    const HostOffset at = cluster.at;
    bytes += cluster.length;
    ASSIGN_OR_RETURN(const bool freeable, can_free(cluster));
    if (freeable) batch.push_back({std::move(cluster)});
    if (bytes < options_.batch_bytes && !pointers.empty()) continue;
    RETURN_IF_ERROR(visit_batch(batch));
    batch.clear();
    bytes = 0;
    if (options_.progress) options_.progress(at.value(), geometry_.start_of(end_).value());
    stopped_ = cancel_->requested();
  }
  RETURN_IF_ERROR(commit());
  return !stopped_;
}

// Returns whether the cluster is plain, and all references to it are known.  Otherwise its place
// would not become free.
Result<bool> ImageZeros::can_free(const StoredCluster& cluster) const {
  if (cluster.compressed) return false;
  if (options_.staying && options_.staying->touches(geometry_, cluster.at, cluster.length))
    return false;
  const HostCluster host = geometry_.host_cluster_of(cluster.at);
  ASSIGN_OR_RETURN(const uint64_t count, refcounts_->get(host));
  if (count < cluster.times) RETURN_IF_ERROR(moves_->require_all_known(host, cluster.times));
  return count == cluster.times;
}

Result<void> ImageZeros::visit_batch(std::span<Candidate> batch) {
  std::atomic<size_t> next = 0;
  std::vector<Result<void>> results(options_.threads);
  parallel_for(options_.threads, options_.threads, [&](size_t worker) {
    std::vector<std::byte> buffer(geometry_.cluster_size());
    for (size_t i = next++; i < batch.size() && results[worker]; i = next++)
      results[worker] = decide(batch[i], buffer);
  });
  for (auto& it : results) RETURN_IF_ERROR(std::move(it));
  for (const Candidate& it : batch)
    if (it.is_zero) RETURN_IF_ERROR(remove(it));
  return {};
}

// Reads the cluster into `buffer`, unless its entries say already that it reads as zeros.
Result<void> ImageZeros::decide(Candidate& candidate, std::span<std::byte> buffer) const {
  const StoredCluster& cluster = candidate.cluster;
  uint32_t subclusters = UINT32_MAX;
  if (geometry_.extended_l2()) {
    ASSIGN_OR_RETURN(subclusters, read_bitmaps(candidate));
  } else if (std::ranges::all_of(cluster.pointers, [](const ClusterPointer& it) {
               return (it.word & kEntryZero) != 0;
             })) {
    subclusters = 0;
  }
  if (subclusters != 0) RETURN_IF_ERROR(read_padded(image_->data_storage(), cluster.at, buffer));
  candidate.is_zero = reads_zeros(buffer, subclusters);
  return {};
}

// Reads the bitmaps of all extended entries.  Returns the subclusters that any of them reads.
Result<uint32_t> ImageZeros::read_bitmaps(Candidate& candidate) const {
  uint32_t read = 0;
  for (const ClusterPointer& it : candidate.cluster.pointers) {
    std::array<std::byte, 8> bytes;
    RETURN_IF_ERROR(read_fully(*storage_, it.at + 8, bytes));
    const L2Entry entry{it.word, load_be64(bytes.data())};
    candidate.bitmaps.push_back(entry.bitmap);
    read |= entry.allocated_mask();
  }
  return read;
}

bool ImageZeros::reads_zeros(std::span<const std::byte> cluster, uint32_t subclusters) const {
  if (subclusters == 0 || subclusters == UINT32_MAX) return subclusters == 0 || is_zero(cluster);
  const uint64_t size = geometry_.subcluster_size();
  for (unsigned i = 0; i < Geometry::kSubclusters; ++i)
    if ((subclusters >> i & 1) != 0 && !is_zero(cluster.subspan(i * size, size))) return false;
  return true;
}

Result<void> ImageZeros::remove(const Candidate& candidate) {
  const StoredCluster& cluster = candidate.cluster;
  moves_->drop_references(cluster.at, cluster.length, cluster.times);
  freed_ += cluster.length;
  const uint64_t empty = geometry_.extended_l2() ? 0 : zero_entry(image_->header()).word;
  for (size_t i = 0; i < cluster.pointers.size(); ++i) {
    const ClusterPointer& it = cluster.pointers[i];
    moves_->point(it.at, it.word, empty);
    ++pending_;
    if (!geometry_.extended_l2()) continue;
    // What is not allocated may be in the backing file.
    const L2Entry entry{it.word, candidate.bitmaps[i]};
    const uint64_t zeros = entry.allocated_mask() | entry.zero_mask();
    // Both words of an extended entry are in one sector, so that they change together.
    moves_->point(it.at + 8, entry.bitmap, zeros << 32);
  }
  return pending_ < kMostPending ? Result<void>() : commit();
}

Result<void> ImageZeros::commit() {
  if (pending_ == 0) return {};
  if (!has_written_) RETURN_IF_ERROR(clear_unknown_autoclear(*storage_, image_->header()));
  has_written_ = true;
  pending_ = 0;
  return moves_->commit();
}

}  // namespace vc::qcow2
