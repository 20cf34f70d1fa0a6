#include "qcow2/repair/deallocation.h"

#include <algorithm>
#include <vector>

#include "qcow2/check/recorded_counts.h"
#include "qcow2/format/refcount_block.h"
#include "storage/padded_read.h"

namespace vc::qcow2 {

namespace {

class Deallocator {
 public:
  Deallocator(UndoStorage& storage, const Geometry& geometry, uint64_t clusters, uint64_t size)
      : storage_(storage), geometry_(geometry), clusters_(clusters), size_(size) {}

  Result<void> visit(const ReferenceCounts& counts) {
    constexpr uint64_t kPage = ReferenceCounts::kPageClusters;
    std::vector<uint32_t> page(kPage);
    const uint64_t end = std::min(clusters_, counts.end().value());
    for (uint64_t at = counts.begin().value(); at < end && !done_.undo_full;) {
      const uint64_t next = counts.next_page(at);
      // Clusters without a page are unreferenced.
      const uint64_t stop = std::min(end, next > at ? next : at + kPage);
      if (next > at || !counts.copy(HostCluster(at), page)) {
        add_free(at, stop);
      } else {
        for (uint64_t i = at; i < stop; ++i)
          if (page[i - at] == 0)
            add_free(i, i + 1);
          else
            RETURN_IF_ERROR(end_run());
      }
      at = stop;
    }
    return {};
  }

  Result<Deallocated> finish() {
    const uint64_t free_from = begin_ == end_ ? clusters_ : begin_;
    RETURN_IF_ERROR(end_run());
    RETURN_IF_ERROR(storage_.flush());
    const uint64_t end = free_from << geometry_.cluster_bits();
    if (done_.undo_full || free_from >= clusters_ || end >= size_) return done_;
    ASSIGN_OR_RETURN(const bool truncated, storage_.truncate(end));
    done_.undo_full = !truncated;
    if (truncated) done_.bytes = std::max(done_.bytes, size_ - end);
    return done_;
  }

 private:
  void add_free(uint64_t first, uint64_t stop) {
    if (begin_ == end_ || end_ != first) begin_ = first;
    end_ = stop;
  }

  // Ends the current run of free clusters.
  Result<void> end_run() {
    const uint64_t limit = std::min(end_ << geometry_.cluster_bits(), size_);
    HostOffset at(begin_ << geometry_.cluster_bits());
    begin_ = end_ = 0;
    while (at.value() < limit && !done_.undo_full) {
      ASSIGN_OR_RETURN(const auto run, storage_.run_at(at, limit - at.value()));
      if (run.data) {
        ASSIGN_OR_RETURN(const bool done, storage_.deallocate(at, run.length));
        if (done) done_.bytes += run.length;
        done_.undo_full = !done;
      }
      at += run.length;
    }
    return {};
  }

  UndoStorage& storage_;
  const Geometry geometry_;
  const uint64_t clusters_;       // of the file
  const uint64_t size_;           // of the file, bytes
  uint64_t begin_ = 0, end_ = 0;  // a run of free clusters
  Deallocated done_;
};

// Returns whether the file has data in uncounted clusters.
Result<bool> free_clusters_hold_data(const Storage& storage, const Header& header) {
  const Geometry geometry = header.geometry();
  ASSIGN_OR_RETURN(const uint64_t size, storage.size());
  ASSIGN_OR_RETURN(const auto counts, RecordedCounts::load(storage, header, size, 1));
  if (!counts.usable()) return false;
  const auto holds_data = [&](uint64_t first, uint64_t stop) {
    const uint64_t begin = first << geometry.cluster_bits();
    return first < stop && begin < size &&
           !is_hole(storage, size, HostOffset(begin),
                    std::min(stop << geometry.cluster_bits(), size) - begin);
  };
  std::vector<std::byte> block(geometry.cluster_size());
  const uint64_t clusters = geometry.clusters_for(size);
  for (uint64_t index = 0; index * counts.per_block() < clusters; ++index) {
    const uint64_t begin = index * counts.per_block();
    const uint64_t end = std::min(begin + counts.per_block(), clusters);
    ASSIGN_OR_RETURN(const bool there, counts.read_block(index, block));
    uint64_t free_from = begin;
    for (uint64_t i = begin; there && i < end; ++i) {
      if (get_refcount(block, i - begin, counts.order()) == 0) continue;
      if (holds_data(free_from, i)) return true;
      free_from = i + 1;
    }
    if (holds_data(free_from, end)) return true;
  }
  return false;
}

class Silent final : public CheckObserver {
 public:
  void found(const Finding& /*finding*/) override {}
};

}  // namespace

Result<uint64_t> deallocate_if_sound(const std::shared_ptr<Storage>& storage) {
  ASSIGN_OR_RETURN(const Header header, Header::read(*storage, Header::Purpose::kUnlock));
  ASSIGN_OR_RETURN(const bool any, free_clusters_hold_data(*storage, header));
  if (!any) return 0;
  UndoStorage image(storage, "");
  ASSIGN_OR_RETURN(auto checker, Checker::open(image, {}));
  Silent silent;
  ASSIGN_OR_RETURN(const CheckSums sums, checker.run(silent));
  if (sums.corruptions + sums.leaks + sums.check_errors > 0 || sums.references_unknown) return 0;
  ASSIGN_OR_RETURN(const Deallocated given, deallocate_free_clusters(image, checker, silent));
  return given.bytes;
}

Result<Deallocated> deallocate_free_clusters(UndoStorage& storage, Checker& checker,
                                             CheckObserver& observer) {
  ASSIGN_OR_RETURN(const uint64_t size, storage.size());
  Deallocator deallocator(storage, checker.header().geometry(), checker.clusters(), size);
  RETURN_IF_ERROR(checker.count(
      true, observer, [&](const ReferenceCounts& counts) { return deallocator.visit(counts); }));
  return deallocator.finish();
}

}  // namespace vc::qcow2
