#include "qcow2/relocate/image_order.h"

#include <fmt/format.h>

#include <algorithm>

#include "qcow2/format/l2_entry.h"
#include "qcow2/refcounts/refcount_writer.h"
#include "qcow2/relocate/unknown_autoclear.h"

namespace vc::qcow2 {

Result<std::unique_ptr<ImageOrder>> ImageOrder::open(std::shared_ptr<Storage> storage,
                                                     std::shared_ptr<const Encryption> encryption,
                                                     Options options) {
  ASSIGN_OR_RETURN(Header header, Header::read(*storage, Header::Purpose::kUnlock));
  ASSIGN_OR_RETURN(auto image, Image::open(storage, std::move(header), nullptr,
                                           std::make_shared<TableCache>(0), std::move(encryption)));
  std::unique_ptr<ImageOrder> it(
      new ImageOrder(std::move(storage), std::move(image), std::move(options)));
  ASSIGN_OR_RETURN(it->refcounts_, Refcounts::load(it->storage_, it->image_->header()));
  // A block device is longer than its image: clusters past the end of this one are free.
  ASSIGN_OR_RETURN(const HostCluster end, it->refcounts_->end_of_use());
  it->refcounts_->truncate(end);
  it->moves_ = std::make_unique<ClusterMoves>(it->storage_, it->image_->shared_data_storage(),
                                              it->geometry_, *it->refcounts_);
  ASSIGN_OR_RETURN(it->references_, References::find(*it->image_));
  ASSIGN_OR_RETURN(it->tables_, it->references_->tables_in_order());
  RETURN_IF_ERROR(it->find_fixed());
  return it;
}

Result<void> ImageOrder::find_fixed() {
  ASSIGN_OR_RETURN(const HostCluster end, refcounts_->end_of_use());
  end_ = end.value();
  if (end_ > ClusterSet::kMostClusters)
    return fail(Error::unsupported(
        fmt::format("{}: the file has {} clusters, too many to be ordered", image_->name(), end_)));
  ClusterSet plain(end_);
  RETURN_IF_ERROR(
      references_->visit_pointers(References::Level::kClusters, [&](const References::Pointer& it) {
        const L2Entry entry{it.word, 0};
        if (entry.compressed())
          ++compressed_;
        else
          plain.add(geometry_.host_cluster_of(entry.host()));
        return Result<void>();
      }));
  fixed_.emplace(end_);
  for (HostCluster it(0); it < end; ++it) {
    const bool stays = options_.staying && options_.staying->contains(it);
    if (plain.contains(it) && !stays) continue;
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_->get(it));
    if (count > 0) fixed_->add(it);
  }
  return {};
}

HostCluster ImageOrder::skip_fixed(HostCluster place) const {
  while (fixed_->contains(place)) ++place;
  return place;
}

size_t ImageOrder::batch_clusters() const {
  return std::max<uint64_t>(options_.batch_bytes >> geometry_.cluster_bits(), 1);
}

Result<uint64_t> ImageOrder::misplaced() const {
  ClusterSet seen(end_);
  HostCluster place = skip_fixed(HostCluster(0));
  uint64_t count = 0;
  const auto look = [&](const References::Pointer& it) -> Result<void> {
    const L2Entry entry{it.word, 0};
    if (entry.compressed()) return {};
    const HostCluster host = geometry_.host_cluster_of(entry.host());
    if (fixed_->contains(host) || !seen.add(host)) return {};
    count += host != place ? 1 : 0;
    place = skip_fixed(place + 1);
    return {};
  };
  for (const HostOffset table : tables_)
    RETURN_IF_ERROR(references_->visit_pointers_of(table, look));
  return count << geometry_.cluster_bits();
}

Result<void> ImageOrder::run(const Cancel& cancel) {
  place_ = skip_fixed(HostCluster(0));
  size_t most = std::max<size_t>(options_.most_pointers / 2, 1);
  while (true) {
    ASSIGN_OR_RETURN(const bool fits, plan_window(most));
    if (!fits) {
      // Snapshots may refer to each cluster many times.
      most /= 2;
      if (most == 0)
        return fail(Error::unsupported(fmt::format(
            "{}: too many entries refer to one cluster, so that it cannot move", image_->name())));
      continue;
    }
    if (wanted_ == 0) break;
    RETURN_IF_ERROR(clear_unknown_autoclear(*storage_, image_->header()));
    const size_t step = batch_clusters();
    for (size_t i = 0; i < wanted_; i += step) {
      stopped_ = cancel.requested();
      if (stopped_) break;
      RETURN_IF_ERROR(move_batch(i, std::min(i + step, wanted_)));
      if (options_.progress)
        options_.progress(geometry_.start_of(*items_[i].target).value(),
                          end_ << geometry_.cluster_bits());
    }
    if (stopped_) break;
    place_ = next_place_;
    table_ = next_table_;
  }
  return write_refcounts(*storage_, *refcounts_);
}

// Returns false if there are too many references for the memory.
Result<bool> ImageOrder::plan_window(size_t most) {
  items_.clear();
  item_at_.clear();
  words_.clear();
  RETURN_IF_ERROR(find_wanted(most));
  RETURN_IF_ERROR(add_occupants());
  return find_words();
}

// Finds the next clusters in the order of guests.
Result<void> ImageOrder::find_wanted(size_t most) {
  next_table_ = table_;
  next_place_ = place_;
  bool full = false;
  const auto look = [&](const References::Pointer& it) -> Result<void> {
    const L2Entry entry{it.word, 0};
    if (full || entry.compressed()) return {};
    const HostCluster host = geometry_.host_cluster_of(entry.host());
    // Another state shares it, and it is in place or in this window.
    if (host < place_ || item_at_.contains(host.value())) return {};
    if (fixed_->contains(host)) return {};
    if (items_.empty() && host == place_) {
      place_ = next_place_ = skip_fixed(place_ + 1);
      return {};
    }
    full = items_.size() >= most;
    if (full) return {};
    item_at_.emplace(host.value(), static_cast<uint32_t>(items_.size()));
    items_.push_back({host, next_place_});
    next_place_ = skip_fixed(next_place_ + 1);
    return {};
  };
  while (next_table_ < tables_.size()) {
    RETURN_IF_ERROR(references_->visit_pointers_of(tables_[next_table_], look));
    if (full) break;
    ++next_table_;
  }
  wanted_ = items_.size();
  return {};
}

// Adds the clusters that are at places of the window and belong elsewhere.
Result<void> ImageOrder::add_occupants() {
  for (size_t i = 0; i < wanted_; ++i) {
    const HostCluster place = *items_[i].target;
    if (item_at_.contains(place.value())) continue;
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_->get(place));
    if (count == 0) continue;
    item_at_.emplace(place.value(), static_cast<uint32_t>(items_.size()));
    items_.push_back({place, std::nullopt});
  }
  return {};
}

Result<bool> ImageOrder::find_words() {
  if (items_.empty()) return true;
  bool fits = true;
  RETURN_IF_ERROR(references_->visit_pointers(
      References::Level::kClusters, [&](const References::Pointer& it) -> Result<void> {
        const L2Entry entry{it.word, 0};
        if (!fits || entry.compressed()) return {};
        const auto found = item_at_.find(geometry_.host_cluster_of(entry.host()).value());
        if (found == item_at_.end()) return {};
        const Item& item = items_[found->second];
        if (item.target == item.place) return {};
        fits = words_.size() < 2 * options_.most_pointers;
        words_.push_back({found->second, it.at, it.word, it.times});
        return {};
      }));
  std::sort(words_.begin(), words_.end(),
            [](const Word& a, const Word& b) { return a.item < b.item; });
  return fits;
}

// Moves a cluster to a place that is free in the file.
Result<void> ImageOrder::move(uint32_t item, HostCluster to) {
  const HostCluster from = items_[item].place;
  const auto [first, last] =
      std::equal_range(words_.begin(), words_.end(), Word{item, {}, 0, 0},
                       [](const Word& a, const Word& b) { return a.item < b.item; });
  uint64_t times = 0;
  for (auto it = first; it != last; ++it) times += it->times;
  RETURN_IF_ERROR(moves_->require_all_known(from, times));
  RETURN_IF_ERROR(moves_->move({from, 1}, to, times, ClusterMoves::Content::kGuestData));
  for (auto it = first; it != last; ++it) {
    const uint64_t word = (it->word & ~kEntryOffsetMask) | geometry_.start_of(to).value();
    moves_->point(it->at, it->word, word);
    it->word = word;
  }
  item_at_.erase(from.value());
  item_at_.emplace(to.value(), item);
  items_[item].place = to;
  free_.erase(to.value());
  return {};
}

// Returns a free place for a cluster that must give way: its own one if that is free and not in
// this batch, else the last free one.
Result<HostCluster> ImageOrder::find_refuge(uint32_t item, size_t batch_end) {
  if (item >= batch_end && item < wanted_) {
    const HostCluster target = *items_[item].target;
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_->get(target));
    if (count == 0) return target;
  }
  if (free_.empty()) {
    ASSIGN_OR_RETURN(const ClusterRun run, refcounts_->find_past_end(batch_clusters()));
    // Copied zeros are holes, which do not extend the file.
    const uint64_t end = geometry_.start_of(run.end()).value();
    ASSIGN_OR_RETURN(const uint64_t size, storage_->size());
    if (size < end) RETURN_IF_ERROR(storage_->resize(end));
    for (uint64_t i = 0; i < run.count; ++i) free_.insert(run.first.value() + i);
  }
  return HostCluster(*free_.rbegin());
}

// Fills the places of the wanted items [begin, end).
Result<void> ImageOrder::move_batch(size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) free_.erase(items_[i].target->value());
  for (size_t i = begin; i < end; ++i) {
    const auto there = item_at_.find(items_[i].target->value());
    if (there == item_at_.end() || there->second == i) continue;
    const uint32_t item = there->second;
    ASSIGN_OR_RETURN(const HostCluster refuge, find_refuge(item, end));
    RETURN_IF_ERROR(move(item, refuge));
  }
  RETURN_IF_ERROR(moves_->commit());
  std::vector<uint64_t> left;
  for (size_t i = begin; i < end; ++i) {
    const HostCluster place = items_[i].place;
    if (place == *items_[i].target) continue;
    RETURN_IF_ERROR(move(static_cast<uint32_t>(i), *items_[i].target));
    left.push_back(place.value());
  }
  RETURN_IF_ERROR(moves_->commit());
  free_.insert(left.begin(), left.end());
  return {};
}

}  // namespace vc::qcow2
