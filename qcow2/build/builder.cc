#include "qcow2/build/builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/byte_order.h"
#include "qcow2/build/tail_layout.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

namespace {

constexpr uint64_t kAllSubclustersAllocated = 0x00000000ffffffff;
constexpr uint64_t kAllSubclustersZero = 0xffffffff00000000;

// The maximum distance of a gap for streams from the end of the file, bytes.
constexpr uint64_t kLeftReach = 4 << 20;

constexpr uint64_t divide_up(uint64_t n, uint64_t by) {
  return n / by + (n % by != 0);
}

// QEMU requires an L1 table even for an empty disk.
uint64_t l1_entries_for(const Geometry& geometry, uint64_t size) {
  return std::max<uint64_t>(geometry.l1_entries_for(size), 1);
}

uint64_t l1_clusters(const Geometry& geometry, uint64_t entries) {
  return divide_up(entries * 8, geometry.cluster_size());
}

}  // namespace

class Builder::Impl {
 public:
  Impl(Storage& out, const BuildOptions& options, Gaps gaps)
      : out_(out),
        options_(options),
        gaps_(gaps),
        geometry_(options.cluster_bits, options.extended_l2),
        size_(options.rounded_size()),
        per_block_(refcounts_per_block(options.cluster_bits, options.refcount_order)),
        l1_entries_(l1_entries_for(geometry_, size_)),
        limit_(TailLayout::last_start(l1_clusters(geometry_, l1_entries_), per_block_,
                                      geometry_.cluster_size()) -
               per_block_ - 4),
        l1_(l1_clusters(geometry_, l1_entries_) * geometry_.cluster_size()),
        l2_(geometry_.cluster_size()),
        refcounts_(geometry_.cluster_size()) {
    clear(l1_);
    clear(l2_);
    clear(refcounts_);
    count(0);  // for the header
  }

  Result<void> make_header();
  Result<Placement> place_data(ClusterIndex first, uint64_t clusters);
  Result<HostOffset> place_compressed(ClusterIndex cluster, uint64_t length);
  Result<void> place_zero(ClusterIndex first, uint64_t clusters);
  Result<Placement> place_preallocated(ClusterIndex first, uint64_t clusters);
  Result<void> skip_preallocated(ClusterIndex first, uint64_t clusters);
  Result<void> shrink_to(uint64_t size);
  Result<void> finish();

  const Geometry& geometry() const { return geometry_; }
  const BuildCounts& counts() const { return counts_; }

 private:
  static void clear(AlignedBuffer& buffer) { std::memset(buffer.data(), 0, buffer.size()); }

  // Returns the cluster of the current range reserved for its refcount block.
  uint64_t reserved() const { return (range_ + 1) * per_block_ - 1; }
  uint64_t get_count(uint64_t cluster) const {
    return get_refcount(refcounts_.span(), cluster % per_block_, options_.refcount_order);
  }
  // Adds a reference to a cluster of the current range.
  void count(uint64_t cluster) {
    set_refcount(refcounts_.span(), cluster % per_block_, options_.refcount_order,
                 get_count(cluster) + 1);
  }

  Result<void> begin(ClusterIndex first, uint64_t clusters);
  Result<void> close_range();
  Result<uint64_t> new_cluster();
  Result<void> end_packing();
  Result<void> end_left();
  Result<void> leave_gap(uint64_t begin);
  Result<void> write_l2();
  void set_entry(ClusterIndex cluster, uint64_t word, uint64_t bitmap);
  Result<Placement> take_run(ClusterIndex first, uint64_t clusters);
  void set_compressed(ClusterIndex cluster, uint64_t at, uint64_t length);
  Result<Placement> place(ClusterIndex first, uint64_t clusters, uint64_t flags, uint64_t bitmap);
  Result<void> write_cluster(uint64_t cluster, const AlignedBuffer& bytes);
  Result<void> write_tail();

  Storage& out_;
  const BuildOptions options_;
  const Gaps gaps_;
  const Geometry geometry_;
  uint64_t size_;             // of the virtual disk, bytes
  const uint64_t per_block_;  // clusters per refcount block
  uint64_t l1_entries_;
  Header header_;

  // Nothing more is placed from here on.  One call takes at most the clusters of a range, with an
  // L2 table and a refcount block before them, and finish () takes the last L2 table and one more
  // block: there is still space for these and for the tail.
  const uint64_t limit_;

  uint64_t next_ = 1;  // the first free cluster of the file; all later ones are free, too
  // The position of the next stream, or 0 if there is none.  Invariant: it is not at the start of a
  // cluster, and its cluster is next_ - 1.
  uint64_t pack_ = 0;
  // The position of a gap for a short stream, in a cluster that other clusters have followed: 0, or
  // within the current range.  Given up when next_ reaches left_until_, so that a sequential writer
  // of the file need not buffer much.
  uint64_t left_ = 0;
  uint64_t left_until_ = 0;

  AlignedBuffer l1_;  // as in the file
  AlignedBuffer l2_;  // the table of l1_index_
  uint64_t l1_index_ = 0;
  bool l2_used_ = false;     // l2_ has an entry
  uint64_t next_guest_ = 0;  // guest clusters before this one must not be placed any more

  uint64_t range_ = 0;                    // the range of next_, unless next_ is about to leave it
  AlignedBuffer refcounts_;               // the counts of that range
  std::vector<uint64_t> refcount_table_;  // blocks of the earlier ranges

  BuildCounts counts_;
};

Result<void> Builder::Impl::make_header() {
  header_.version = options_.version;
  header_.cluster_bits = options_.cluster_bits;
  header_.size = size_;
  header_.refcount_order = options_.refcount_order;
  header_.compression_type = options_.compression_type;
  header_.l1_entries = static_cast<uint32_t>(l1_entries_);
  if (options_.extended_l2) header_.incompatible_features |= incompatible::kExtendedL2;
  if (options_.compression_type != CompressionType::kDeflate)
    header_.incompatible_features |= incompatible::kCompressionType;
  if (!options_.data_file.empty()) {
    header_.incompatible_features |= incompatible::kDataFile;
    if (options_.data_file_raw) header_.autoclear_features |= autoclear::kDataFileRaw;
    const auto name = std::as_bytes(std::span(options_.data_file));
    header_.extensions.push_back({HeaderExtension::kDataFile, {name.begin(), name.end()}});
  }
  if (options_.lazy_refcounts) header_.compatible_features |= compatible::kLazyRefcounts;
  header_.backing_file = options_.backing_file;
  if (!options_.backing_format.empty()) {
    const auto name = std::as_bytes(std::span(options_.backing_format));
    header_.extensions.push_back({HeaderExtension::kBackingFormat, {name.begin(), name.end()}});
  }
  if (options_.version >= 3) {
    header_.extensions.push_back(feature_name_table());
    // The names are optional; the smallest clusters may have no space for them.
    if (header_.encode()) return {};
    header_.extensions.pop_back();
  }
  auto encoded = header_.encode();
  if (!encoded) return fail(std::move(encoded).error());
  return {};
}

Result<void> Builder::Impl::write_cluster(uint64_t cluster, const AlignedBuffer& bytes) {
  return out_.write(geometry_.start_of(HostCluster(cluster)), bytes.span());
}

// The reserved cluster is next: the counts of all clusters before it are final.
Result<void> Builder::Impl::close_range() {
  RETURN_IF_ERROR(end_left());
  const uint64_t cluster = reserved();
  count(cluster);
  RETURN_IF_ERROR(write_cluster(cluster, refcounts_));
  refcount_table_.push_back(geometry_.start_of(HostCluster(cluster)).value());
  clear(refcounts_);
  ++range_;
  next_ = cluster + 1;
  return {};
}

// Handles the gap from `begin` to the end of the cluster, which will not be written.
Result<void> Builder::Impl::leave_gap(uint64_t begin) {
  const uint64_t cluster_size = geometry_.cluster_size();
  if (begin == 0 || gaps_ != Gaps::kZero) return {};
  return out_.write_zeroes(HostOffset(begin), cluster_size - geometry_.offset_in_cluster(begin));
}

Result<void> Builder::Impl::end_left() {
  return leave_gap(std::exchange(left_, 0));
}

// Ends the current stream cluster: the next stream starts a new cluster.
Result<void> Builder::Impl::end_packing() {
  return leave_gap(std::exchange(pack_, 0));
}

// The new cluster's count stays 0 until count ().
Result<uint64_t> Builder::Impl::new_cluster() {
  if (pack_ != 0) {
    RETURN_IF_ERROR(end_left());
    left_ = std::exchange(pack_, 0);
    left_until_ = next_ + std::max<uint64_t>(kLeftReach >> options_.cluster_bits, 1);
  }
  if (next_ >= left_until_) RETURN_IF_ERROR(end_left());
  if (next_ == reserved()) RETURN_IF_ERROR(close_range());
  return next_++;
}

Result<void> Builder::Impl::write_l2() {
  if (!l2_used_) return {};
  ASSIGN_OR_RETURN(const uint64_t cluster, new_cluster());
  count(cluster);
  RETURN_IF_ERROR(write_cluster(cluster, l2_));
  store_be64(l1_.data() + l1_index_ * 8,
             geometry_.start_of(HostCluster(cluster)).value() | kEntryCopied);
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

// Switches to the L2 table of `first`.  Guest clusters come in order, so the previous table is
// complete.
Result<void> Builder::Impl::begin(ClusterIndex first, uint64_t clusters) {
  const uint64_t all = geometry_.clusters_for(size_);
  if (first.value() < next_guest_ || clusters == 0 || clusters > all ||
      first.value() > all - clusters)
    return fail(
        Error::invalid(fmt::format("guest cluster {} (and {} more) is out of order, or "
                                   "outside of the disk",
                                   first.value(), clusters - 1)));
  if (next_ >= limit_)
    return fail(Error::invalid(fmt::format(
        "{}: the file cannot be longer than {} bytes with clusters of {} bytes and refcounts of {} "
        "bits",
        out_.name(), next_ * geometry_.cluster_size(), geometry_.cluster_size(),
        1u << options_.refcount_order)));
  const uint64_t l1_index = geometry_.l1_index(first);
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
    ASSIGN_OR_RETURN(const uint64_t start, new_cluster());
    placed = std::min(placed, reserved() - start);
    next_ = start + placed;
    host = geometry_.start_of(HostCluster(start));
  }
  next_guest_ = first.value() + placed;
  return Placement{host, placed};
}

// Places uncompressed clusters whose entries have these flags and this bitmap.
Result<Builder::Placement> Builder::Impl::place(ClusterIndex first, uint64_t clusters,
                                                uint64_t flags, uint64_t bitmap) {
  ASSIGN_OR_RETURN(const Placement run, take_run(first, clusters));
  if (options_.data_file.empty()) {
    const uint64_t start = geometry_.host_cluster_of(run.host).value();
    for (uint64_t i = 0; i < run.clusters; ++i) count(start + i);
  }
  for (uint64_t i = 0; i < run.clusters; ++i)
    set_entry(first + i, (run.host + i * geometry_.cluster_size()).value() | flags, bitmap);
  return run;
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
                   place(first, clusters, kEntryCopied, kAllSubclustersAllocated));
  counts_.data_clusters += placed.clusters;
  return placed;
}

Result<Builder::Placement> Builder::Impl::place_preallocated(ClusterIndex first,
                                                             uint64_t clusters) {
  // Makes them like data that was never written: QEMU then needs no metadata update for the first
  // write.  With the zero flag, that write took 1.5 to 6 times as long (4 KiB writes, clusters of 1
  // MiB and 64 KiB).  The flag is for places that may contain old data; version 2 does not have it.
  const bool stale = gaps_ == Gaps::kUnknown || !options_.data_file.empty();
  const bool flag = stale && options_.version >= 3;
  ASSIGN_OR_RETURN(
      const Placement placed,
      place(first, clusters, kEntryCopied | (flag && !options_.extended_l2 ? kEntryZero : 0),
            flag ? kAllSubclustersZero : kAllSubclustersAllocated));
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
  l1_entries_ = l1_entries_for(geometry_, size_);
  header_.size = size_;
  header_.l1_entries = static_cast<uint32_t>(l1_entries_);
  return {};
}

Result<HostOffset> Builder::Impl::place_compressed(ClusterIndex cluster, uint64_t length) {
  const uint64_t cluster_size = geometry_.cluster_size();
  if (!options_.data_file.empty())
    return fail(Error::invalid("compressed clusters have no place in an external data file"));
  if (length == 0 || length >= cluster_size)
    return fail(Error::invalid(fmt::format("a compressed cluster of {} bytes", length)));
  RETURN_IF_ERROR(begin(cluster, 1));

  // Continues after the previous stream, if the count of that cluster can grow by one and the next
  // cluster is free for a crossing stream.
  bool crosses = false;
  if (pack_ != 0) {
    crosses = geometry_.offset_in_cluster(pack_) + length > cluster_size;
    if (get_count(next_ - 1) == max_refcount(options_.refcount_order) ||
        (crosses && next_ == reserved()))
      RETURN_IF_ERROR(end_packing());
  }
  uint64_t at = pack_;
  if (at == 0 && geometry_.offset_in_cluster(left_) + length <= cluster_size && left_ != 0 &&
      get_count(left_ >> options_.cluster_bits) < max_refcount(options_.refcount_order)) {
    at = left_;
    count(at >> options_.cluster_bits);
    left_ = geometry_.offset_in_cluster(at + length) == 0 ? 0 : at + length;
    set_compressed(cluster, at, length);
    return HostOffset(at);
  }
  if (at == 0) {
    ASSIGN_OR_RETURN(const uint64_t fresh, new_cluster());
    at = geometry_.start_of(HostCluster(fresh)).value();
    crosses = false;
  }
  count(next_ - 1);
  if (crosses) {
    ++next_;
    count(next_ - 1);
  }
  if (at >> CompressedDescriptor::offset_bits(options_.cluster_bits) != 0)
    return fail(
        Error::invalid(fmt::format("{}: compressed data at {:#x}: too far for clusters of {} bytes",
                                   out_.name(), at, cluster_size)));
  pack_ = geometry_.offset_in_cluster(at + length) == 0 ? 0 : at + length;
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
  const auto tail = TailLayout::plan(next_, l1_clusters(geometry_, l1_entries_), range_, per_block_,
                                     cluster_size);
  // begin () ensures this.
  assert(tail.table_clusters() * cluster_size <= Limits::kRefcountTableBytes);

  // Writes only the part that the disk needs, which may have been shrunk.
  RETURN_IF_ERROR(out_.write(geometry_.start_of(HostCluster(tail.l1)),
                             l1_.span().first(l1_clusters(geometry_, l1_entries_) * cluster_size)));

  // Completes the open range, whose counts so far are in refcounts_; then the ranges that contain
  // only the tail.
  uint64_t at = next_;
  for (uint64_t cluster = tail.blocks; cluster < tail.end; ++cluster) {
    const uint64_t range_end = std::min((range_ + 1) * per_block_, tail.end);
    for (; at < range_end; ++at) count(at);
    RETURN_IF_ERROR(write_cluster(cluster, refcounts_));
    refcount_table_.push_back(geometry_.start_of(HostCluster(cluster)).value());
    clear(refcounts_);
    ++range_;
  }

  AlignedBuffer table(tail.table_clusters() * cluster_size);
  clear(table);
  for (uint64_t i = 0; i < refcount_table_.size(); ++i)
    store_be64(table.data() + i * 8, refcount_table_[i]);
  RETURN_IF_ERROR(write_cluster(tail.table, table));

  header_.l1_table = geometry_.start_of(HostCluster(tail.l1));
  header_.refcount_table = geometry_.start_of(HostCluster(tail.table));
  header_.refcount_table_clusters = static_cast<uint32_t>(tail.table_clusters());
  counts_.file_size = tail.end * cluster_size;
  return {};
}

Result<void> Builder::Impl::finish() {
  RETURN_IF_ERROR(write_l2());
  RETURN_IF_ERROR(end_packing());
  RETURN_IF_ERROR(end_left());
  RETURN_IF_ERROR(write_tail());
  RETURN_IF_ERROR(out_.resize(counts_.file_size));
  ASSIGN_OR_RETURN(const auto encoded, header_.encode());
  AlignedBuffer cluster(geometry_.cluster_size());
  clear(cluster);
  std::copy(encoded.begin(), encoded.end(), cluster.data());
  return write_cluster(0, cluster);
}

Builder::Builder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Builder::~Builder() = default;

Result<std::unique_ptr<Builder>> Builder::create(Storage& out, const BuildOptions& options,
                                                 Gaps gaps) {
  RETURN_IF_ERROR(check(options));
  auto impl = std::make_unique<Impl>(out, options, gaps);
  RETURN_IF_ERROR(impl->make_header());
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
  // The header, and the L2 tables with at least one entry each.
  const uint64_t before = 1 + std::min(l1_entries, clusters);
  const uint64_t blocks = divide_up(before + clusters, per_block - 1);
  const auto tail = TailLayout::plan(before + clusters + blocks, l1_clusters(geometry, l1_entries),
                                     blocks, per_block, cluster_size);
  return (tail.end - clusters) * cluster_size;
}

}  // namespace vc::qcow2
