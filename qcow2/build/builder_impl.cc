#include "qcow2/build/builder_impl.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/build/bitmap_layout.h"
#include "qcow2/build/fresh_header.h"
#include "qcow2/build/tail_layout.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

namespace {

constexpr uint64_t kAllSubclustersAllocated = 0x00000000ffffffff;
constexpr uint64_t kAllSubclustersZero = 0xffffffff00000000;

uint64_t luks_clusters(const BuildOptions& options) {
  if (!options.encryption) return 0;
  return divide_up(options.encryption->header.size(), uint64_t{1} << options.cluster_bits);
}

// Returns whether the LUKS header fits in front of the first refcount block, which must not divide
// it. There it does not prevent the file from being truncated later.  Small clusters have no such
// place: the header is then at the end.
bool luks_is_first(const BuildOptions& options) {
  return luks_clusters(options) + 2 <=
         refcounts_per_block(options.cluster_bits, options.refcount_order);
}

uint64_t luks_clusters_at_end(const BuildOptions& options) {
  return luks_is_first(options) ? 0 : luks_clusters(options);
}

// Returns the cluster from which on nothing more is placed.  One call takes at most the clusters of
// a range, with an L2 table and a refcount block before them, and finish () takes the last L2 table
// and one more block: there is still space for these and for the tail.
uint64_t limit(const BuildOptions& options, uint64_t l1_clusters) {
  const uint64_t per_block = refcounts_per_block(options.cluster_bits, options.refcount_order);
  const uint64_t last =
      TailLayout::last_start(l1_clusters, per_block, uint64_t{1} << options.cluster_bits);
  return last - std::min(last, per_block + 4 + BitmapLayout::most_clusters(options));
}

}  // namespace

Builder::Impl::Impl(Storage& out, const BuildOptions& options, Gaps gaps)
    : out_(out),
      options_(options),
      gaps_(gaps),
      geometry_(options.cluster_bits, options.extended_l2),
      size_(options.rounded_size()),
      end_(geometry_.clusters_for(size_)),
      l1_entries_(l1_entries_for(geometry_, size_)),
      limit_(limit(options, l1_clusters(geometry_, l1_entries_) + luks_clusters_at_end(options))),
      clusters_(out, options, gaps == Gaps::kZero),
      l1_((l1_clusters(geometry_, l1_entries_) + luks_clusters_at_end(options)) *
          geometry_.cluster_size()),
      l2_(geometry_.cluster_size()) {
  clear(l1_);
  clear(l2_);
}

Result<void> Builder::Impl::make_header() {
  ASSIGN_OR_RETURN(header_, fresh_header(options_, static_cast<uint32_t>(l1_entries_)));
  return {};
}

void Builder::Impl::set_luks(HostOffset at) {
  const EncryptionPointer pointer{at, options_.encryption->header.size()};
  for (HeaderExtension& it : header_.extensions)
    if (it.type == HeaderExtension::kLuks) it = pointer.encode();
}

// Writes the LUKS header of an encrypted image, if it is the first in the file.
Result<void> Builder::Impl::write_luks() {
  if (!options_.encryption || !luks_is_first(options_)) return {};
  const uint64_t clusters = luks_clusters(options_);
  ASSIGN_OR_RETURN(const uint64_t first, clusters_.take());
  clusters_.take_more(clusters - 1);
  for (uint64_t i = 0; i < clusters; ++i) clusters_.count(first + i);
  const auto& luks = options_.encryption->header;
  AlignedBuffer bytes(clusters * geometry_.cluster_size());
  clear(bytes);
  std::copy(luks.begin(), luks.end(), bytes.data());
  const HostOffset at = geometry_.start_of(HostCluster(first));
  set_luks(at);
  return out_.write(at, bytes.span());
}

Result<void> Builder::Impl::write_l2() {
  if (!l2_used_) return {};
  if (state_ > 0) RETURN_IF_ERROR(check_length());
  uint64_t states = 1;
  if (shares()) {
    ASSIGN_OR_RETURN(states, sharing_->states_with_table(state_, l1_index_));
  }
  ASSIGN_OR_RETURN(const uint64_t cluster, clusters_.take());
  clusters_.count(cluster, states);
  RETURN_IF_ERROR(clusters_.write_cluster(cluster, l2_));
  store_be64(current_l1().data() + l1_index_ * 8,
             geometry_.start_of(HostCluster(cluster)).value() |
                 (state_ == 0 && states == 1 ? kEntryCopied : 0));
  clear(l2_);
  l2_used_ = false;
  return {};
}

void Builder::Impl::set_entry(ClusterIndex cluster, uint64_t word, uint64_t bitmap) {
  std::byte* const entry = l2_.data() + geometry_.l2_index(cluster) * geometry_.l2_entry_size();
  store_be64(entry, word);
  if (geometry_.extended_l2()) store_be64(entry + 8, bitmap);
  l2_used_ = true;
}

// Returns an error if the file cannot have `clusters` more.
Result<void> Builder::Impl::check_length(uint64_t clusters) const {
  if (clusters_.next() + clusters < limit_) return {};
  return fail(Error::invalid(fmt::format(
      "{}: the file cannot be longer than {} bytes with clusters of {} bytes and refcounts of {} "
      "bits",
      out_.name(), clusters_.next() * geometry_.cluster_size(), geometry_.cluster_size(),
      1u << options_.refcount_order)));
}

// Switches to the L2 table of `first`.
Result<void> Builder::Impl::begin(ClusterIndex first, uint64_t clusters) {
  if (first.value() < next_guest_ || clusters == 0 || clusters > end_ ||
      first.value() > end_ - clusters)
    return fail(
        Error::invalid(fmt::format("guest cluster {} (and {} more) is out of order, or "
                                   "outside of the disk",
                                   first.value(), clusters - 1)));
  RETURN_IF_ERROR(check_length());
  if (state_ > 0) RETURN_IF_ERROR(inherit_to(first.value()));
  if (next_guest_ > first.value())
    return fail(Error::invalid(
        fmt::format("guest cluster {} is in a table of an earlier state", first.value())));
  return switch_to(geometry_.l1_index(first));
}

// Guest clusters come in order, so the previous table is complete.
Result<void> Builder::Impl::switch_to(uint64_t l1_index) {
  if (l1_index == l1_index_) return {};
  RETURN_IF_ERROR(write_l2());
  l1_index_ = l1_index;
  return {};
}

// Allocates uncompressed clusters within one L2 table and one range.
Result<Builder::Placement> Builder::Impl::take_run(ClusterIndex first, uint64_t clusters) {
  RETURN_IF_ERROR(begin(first, clusters));
  uint64_t placed = std::min(clusters, geometry_.l2_entries() - geometry_.l2_index(first));
  HostOffset host(geometry_.start_of(first).value());
  if (options_.data_file.empty()) {
    ASSIGN_OR_RETURN(const uint64_t start, clusters_.take());
    placed = 1 + clusters_.take_more(placed - 1);
    host = geometry_.start_of(HostCluster(start));
  }
  next_guest_ = first.value() + placed;
  return Placement{host, placed};
}

// Places uncompressed clusters whose entries have these flags and this bitmap.
Result<Builder::Placement> Builder::Impl::place(ClusterIndex first, uint64_t clusters,
                                                uint64_t flags, uint64_t bitmap, bool is_shared) {
  ASSIGN_OR_RETURN(const Placement run, take_run(first, clusters));
  const uint64_t start = geometry_.host_cluster_of(run.host).value();
  const bool counts = options_.data_file.empty();
  for (uint64_t i = 0; i < run.clusters; ++i) {
    uint64_t states = 1;
    if (is_shared) {
      ASSIGN_OR_RETURN(states, states_with(first + i));
    }
    if (counts) clusters_.count(start + i, states);
    const uint64_t copied = state_ == 0 && states == 1 ? kEntryCopied : 0;
    set_entry(first + i, (run.host + i * geometry_.cluster_size()).value() | flags | copied,
              bitmap);
  }
  return run;
}

Result<uint64_t> Builder::Impl::states_with(ClusterIndex cluster) {
  if (!shares()) return uint64_t{1};
  return sharing_->states_with(state_, cluster);
}

Result<void> Builder::Impl::skip_preallocated(ClusterIndex first, uint64_t clusters) {
  while (clusters > 0) {
    ASSIGN_OR_RETURN(const Placement run, take_run(first, clusters));
    l2_used_ = true;
    counts_.preallocated_clusters += run.clusters;
    first += run.clusters;
    clusters -= run.clusters;
  }
  return {};
}

Result<Builder::Placement> Builder::Impl::place_data(ClusterIndex first, uint64_t clusters) {
  ASSIGN_OR_RETURN(const Placement placed,
                   place(first + base_, clusters, 0, kAllSubclustersAllocated, true));
  counts_.data_clusters += placed.clusters;
  return placed;
}

Result<Builder::Placement> Builder::Impl::place_preallocated(ClusterIndex first,
                                                             uint64_t clusters) {
  // Makes them like data that was never written: QEMU then needs no metadata update for the first
  // write.  With the zero flag, that write took 1.5 to 6 times as long (4 KiB writes, clusters of 1
  // MiB and 64 KiB).  The flag is for places that may contain old data; version 2 does not have it.
  // What was never written does not read as zeros in an encrypted image.
  const bool stale =
      gaps_ == Gaps::kUnknown || !options_.data_file.empty() || options_.encryption != nullptr;
  const bool flag = stale && options_.version >= 3;
  if (options_.encryption && !flag)
    return fail(Error::invalid(
        "preallocation of an encrypted image needs compat=1.1, which has zero clusters"));
  ASSIGN_OR_RETURN(const Placement placed,
                   place(first, clusters, flag && !options_.extended_l2 ? kEntryZero : 0,
                         flag ? kAllSubclustersZero : kAllSubclustersAllocated, false));
  counts_.preallocated_clusters += placed.clusters;
  if ((gaps_ == Gaps::kZero && options_.data_file.empty()) || (stale && !flag))
    RETURN_IF_ERROR(out_.write_zeroes(placed.host, placed.clusters << geometry_.cluster_bits()));
  return placed;
}

Result<void> Builder::Impl::shrink_to(uint64_t size) {
  BuildOptions options = options_;
  options.size = size;
  if (options.rounded_size() > size_ ||
      next_guest_ > geometry_.clusters_for(options.rounded_size()))
    return fail(
        Error::invalid(fmt::format("a disk of {} bytes cannot hold what was placed", size)));
  size_ = options.rounded_size();
  end_ = geometry_.clusters_for(size_);
  l1_entries_ = l1_entries_for(geometry_, size_);
  header_.size = size_;
  header_.l1_entries = static_cast<uint32_t>(l1_entries_);
  return {};
}

Result<HostOffset> Builder::Impl::place_compressed(ClusterIndex cluster, uint64_t length) {
  cluster += base_;
  const uint64_t cluster_size = geometry_.cluster_size();
  if (!options_.data_file.empty())
    return fail(Error::invalid("compressed clusters have no place in an external data file"));
  if (options_.encryption)
    return fail(Error::invalid("an encrypted image has no compressed clusters"));
  if (length == 0 || length >= cluster_size)
    return fail(Error::invalid(fmt::format("a compressed cluster of {} bytes", length)));
  RETURN_IF_ERROR(begin(cluster, 1));
  ASSIGN_OR_RETURN(const uint64_t states, states_with(cluster));
  ASSIGN_OR_RETURN(const uint64_t at, clusters_.place_stream(length, states));
  set_compressed(cluster, at, length);
  return HostOffset(at);
}

void Builder::Impl::set_compressed(ClusterIndex cluster, uint64_t at, uint64_t length) {
  const auto descriptor = CompressedDescriptor::covering(HostOffset(at), length);
  set_entry(cluster, descriptor.encode(options_.cluster_bits), 0);
  next_guest_ = cluster.value() + 1;
  ++counts_.compressed_clusters;
  counts_.compressed_bytes += length;
}

Result<void> Builder::Impl::place_zero(ClusterIndex first, uint64_t clusters) {
  if (options_.version < 3)
    return fail(Error::invalid("compat=0.10 (version 2) has no zero clusters"));
  first += base_;
  RETURN_IF_ERROR(begin(first, clusters));
  for (uint64_t i = 0; i < clusters; ++i) {
    RETURN_IF_ERROR(begin(first + i, 1));
    set_entry(first + i, options_.extended_l2 ? 0 : kEntryZero, kAllSubclustersZero);
    next_guest_ = first.value() + i + 1;
  }
  counts_.zero_clusters += clusters;
  return {};
}

Result<void> Builder::Impl::write_tail() {
  const uint64_t cluster_size = geometry_.cluster_size();
  // Writes only the part that the disk needs, which may have been shrunk.
  const uint64_t l1_end = l1_clusters(geometry_, l1_entries_) * cluster_size;
  const auto l1 = l1_.span().first(l1_end + luks_clusters_at_end(options_) * cluster_size);
  if (luks_clusters_at_end(options_) > 0) {
    const auto& luks = options_.encryption->header;
    std::memset(l1.data() + l1_end, 0, l1.size() - l1_end);
    std::copy(luks.begin(), luks.end(), l1.begin() + static_cast<ptrdiff_t>(l1_end));
  }
  ASSIGN_OR_RETURN(const TailLayout tail, clusters_.write_tail(l1));
  if (luks_clusters_at_end(options_) > 0)
    set_luks(geometry_.start_of(HostCluster(tail.l1)) + l1_end);
  header_.l1_table = geometry_.start_of(HostCluster(tail.l1));
  header_.refcount_table = geometry_.start_of(HostCluster(tail.table));
  header_.refcount_table_clusters = static_cast<uint32_t>(tail.table_clusters());
  counts_.file_size = tail.end * cluster_size;
  return {};
}

Result<void> Builder::Impl::write_bitmaps() {
  if (options_.bitmaps.empty()) return {};
  RETURN_IF_ERROR(check_length());
  BitmapLayout layout(out_, geometry_, clusters_);
  for (const NewBitmap& it : options_.bitmaps) RETURN_IF_ERROR(layout.write(it, size_));
  ASSIGN_OR_RETURN(HeaderExtension extension, layout.write_directory());
  const auto place =
      std::find_if(header_.extensions.begin(), header_.extensions.end(),
                   [](const HeaderExtension& it) { return it.type == HeaderExtension::kBitmaps; });
  if (place != header_.extensions.end()) *place = std::move(extension);
  return {};
}

Result<void> Builder::Impl::finish() {
  RETURN_IF_ERROR(end_state());
  RETURN_IF_ERROR(write_snapshot_table());
  RETURN_IF_ERROR(write_bitmaps());
  RETURN_IF_ERROR(write_tail());
  RETURN_IF_ERROR(out_.resize(counts_.file_size));
  ASSIGN_OR_RETURN(const auto encoded, header_.encode());
  AlignedBuffer cluster(geometry_.cluster_size());
  clear(cluster);
  std::copy(encoded.begin(), encoded.end(), cluster.data());
  return clusters_.write_cluster(0, cluster);
}

Builder::Builder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Builder::~Builder() = default;

Result<std::unique_ptr<Builder>> Builder::create(Storage& out, const BuildOptions& options,
                                                 Gaps gaps) {
  RETURN_IF_ERROR(check(options));
  auto impl = std::make_unique<Impl>(out, options, gaps);
  RETURN_IF_ERROR(impl->make_header());
  RETURN_IF_ERROR(impl->write_luks());
  return std::unique_ptr<Builder>(new Builder(std::move(impl)));
}

Result<Builder::Placement> Builder::place_data(ClusterIndex first, uint64_t clusters) {
  return impl_->place_data(first, clusters);
}

Result<HostOffset> Builder::place_compressed(ClusterIndex cluster, uint64_t length) {
  return impl_->place_compressed(cluster, length);
}

Result<void> Builder::place_zero(ClusterIndex first, uint64_t clusters) {
  return impl_->place_zero(first, clusters);
}

Result<Builder::Placement> Builder::place_preallocated(ClusterIndex first, uint64_t clusters) {
  return impl_->place_preallocated(first, clusters);
}

Result<void> Builder::skip_preallocated(ClusterIndex first, uint64_t clusters) {
  return impl_->skip_preallocated(first, clusters);
}

Result<void> Builder::shrink_to(uint64_t size) {
  return impl_->shrink_to(size);
}

Result<void> Builder::carry(Sharing& sharing) {
  return impl_->carry(sharing);
}

Result<void> Builder::begin_snapshot(const Snapshot& snapshot) {
  return impl_->begin_snapshot(snapshot);
}

Result<void> Builder::begin_vm_state() {
  return impl_->begin_vm_state();
}

Result<void> Builder::finish() {
  return impl_->finish();
}

const Geometry& Builder::geometry() const {
  return impl_->geometry();
}

const BuildCounts& Builder::counts() const {
  return impl_->counts();
}

uint64_t Builder::metadata_bytes(const BuildOptions& options, uint64_t clusters) {
  const Geometry geometry(options.cluster_bits, options.extended_l2);
  const uint64_t cluster_size = geometry.cluster_size();
  const uint64_t l1_entries = l1_entries_for(geometry, options.rounded_size());
  const uint64_t per_block = refcounts_per_block(options.cluster_bits, options.refcount_order);
  // The header, the LUKS header, and the L2 tables with at least one entry each.
  const uint64_t luks = luks_clusters(options);
  const uint64_t at_end = luks_clusters_at_end(options);
  const uint64_t before = 1 + (luks - at_end) + std::min(l1_entries, clusters);
  const uint64_t blocks = divide_up(before + clusters, per_block - 1);
  const auto tail = TailLayout::plan(before + clusters + blocks,
                                     l1_clusters(geometry, l1_entries) + luks_clusters(options) +
                                         BitmapLayout::most_clusters(options),
                                     blocks, per_block, cluster_size);
  return (tail.end - clusters) * cluster_size;
}

}  // namespace vc::qcow2
