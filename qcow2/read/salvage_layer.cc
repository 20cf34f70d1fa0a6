#include "qcow2/read/salvage_layer.h"

#include <algorithm>
#include <cstring>

#include "qcow2/check/checker.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/reserved_bits.h"

namespace vc::qcow2 {

namespace {

constexpr uint64_t kPageSize = 4 << 10;  // bytes

Extent extent_at(GuestOffset at, uint64_t length, ExtentKind kind) {
  Extent extent;
  extent.guest = at;
  extent.length = length;
  extent.kind = kind;
  return extent;
}

// Collects the lost data that a check finds.
class LossFinder final : public CheckObserver {
 public:
  LossFinder(Losses& losses, uint32_t snapshot, uint64_t cluster_size)
      : losses_(losses), snapshot_(snapshot), cluster_size_(cluster_size) {}

  void found(const Finding& it) override {
    if (!it.guest || (it.snapshot != Finding::kActive && it.snapshot != snapshot_)) return;
    if (it.kind == Finding::Kind::kLostReferences && it.guest_length > 0)
      losses_.add(*it.guest, it.guest_length, LossReason::kReferences);
    if (it.kind == Finding::Kind::kOverlap)
      losses_.add(*it.guest, cluster_size_, LossReason::kOverlap);
  }

 private:
  Losses& losses_;
  const uint32_t snapshot_;
  const uint64_t cluster_size_;
};

}  // namespace

Result<void> SalvageLayer::read(const Extent& extent, GuestOffset at,
                                std::span<std::byte> to) const {
  auto done = inner_->read(extent, at, to);
  if (done) {
    if (extent.kind == ExtentKind::kData) tell_missing_tail(extent, at, to.size());
    return {};
  }
  if (extent.kind == ExtentKind::kData) {
    read_pieces(extent, at, to);
    return {};
  }
  std::memset(to.data(), 0, to.size());
  losses_->add(
      at, to.size(),
      done.error().kind() == Error::Kind::kSystem ? LossReason::kUnreadable : LossReason::kStream);
  return {};
}

void SalvageLayer::read_pieces(const Extent& extent, GuestOffset at,
                               std::span<std::byte> to) const {
  for (uint64_t done = 0; done < to.size();) {
    // Pieces end at page boundaries of the file.
    const uint64_t host = (extent.host + (at + done - extent.guest)).value();
    const uint64_t length = std::min(to.size() - done, kPageSize - host % kPageSize);
    const auto piece = to.subspan(done, length);
    if (auto read = inner_->read(extent, at + done, piece)) {
      tell_missing_tail(extent, at + done, length);
    } else {
      std::memset(piece.data(), 0, length);
      losses_->add(at + done, length,
                   read.error().kind() == Error::Kind::kSystem ? LossReason::kUnreadable
                                                               : LossReason::kPastEnd);
    }
    done += length;
  }
}

// Reports the part of the last cluster past the end of the file: it reads as zeros, and may have
// been truncated.
void SalvageLayer::tell_missing_tail(const Extent& extent, GuestOffset at, uint64_t length) const {
  const Storage* const storage = inner_->cluster_storage();
  if (storage == nullptr) return;
  const auto size = storage->size();
  const uint64_t host = (extent.host + (at - extent.guest)).value();
  if (!size || host + length <= *size) return;
  const uint64_t there = host < *size ? *size - host : 0;
  losses_->add(at + there, length - there, LossReason::kPastEnd);
}

Qcow2SalvageLayer::Qcow2SalvageLayer(std::shared_ptr<Qcow2Layer> inner,
                                     std::shared_ptr<Losses> losses, HostOffset l1_table,
                                     uint32_t l1_entries, bool active)
    : SalvageLayer(inner, std::move(losses)),
      qcow2_(std::move(inner)),
      geometry_(qcow2_->image()->geometry()),
      l1_table_(l1_table),
      l1_entries_(l1_entries),
      active_(active),
      l1_(qcow2_->image()->storage()),
      l2_(qcow2_->image()->storage()) {}

Result<std::shared_ptr<Layer>> Qcow2SalvageLayer::open(std::shared_ptr<Image> image,
                                                       HostOffset l1_table, uint32_t l1_entries,
                                                       uint64_t size, uint32_t snapshot,
                                                       std::shared_ptr<Losses> losses) {
  // This layer only reads data: its L1 table is empty.
  ASSIGN_OR_RETURN(auto layer, Qcow2Layer::open(std::move(image), HostOffset(0), 0, size));
  auto inner = std::dynamic_pointer_cast<Qcow2Layer>(std::move(layer));
  const std::shared_ptr<Qcow2SalvageLayer> salvage(new Qcow2SalvageLayer(
      std::move(inner), std::move(losses), l1_table, l1_entries, snapshot == Finding::kActive));
  salvage->find_overwritten_tables(snapshot);
  return std::shared_ptr<Layer>(salvage);
}

void Qcow2SalvageLayer::find_overwritten_tables(uint32_t snapshot) {
  auto checker = Checker::open(qcow2_->image()->storage(), {});
  if (!checker) return;
  LossFinder finder(known_, snapshot, geometry_.cluster_size());
  is_checked_ = checker->run(finder).has_value();
}

Result<Extent> Qcow2SalvageLayer::map(GuestOffset at, uint64_t limit) const {
  const Loss known = known_.next(at);
  const bool inside = known.length > 0 && known.at <= at;
  if (known.length > 0) limit = std::min(limit, (inside ? known.end() : known.at) - at);
  Answer answer = [&] {
    if (inside && known.reason == LossReason::kOverlap)
      return Answer{extent_at(at, limit, ExtentKind::kZero), known.reason};
    return look_up(at, limit);
  }();
  if (inside && !answer.lost && answer.extent.kind == ExtentKind::kUnallocated)
    answer.lost = known.reason;
  if (answer.lost) {
    answer.extent.kind = ExtentKind::kZero;
    answer.extent.preallocated = false;
    losses().add(answer.extent.guest, answer.extent.length, *answer.lost);
  }
  return answer.extent;
}

Qcow2SalvageLayer::Answer Qcow2SalvageLayer::look_up(GuestOffset at, uint64_t limit) const {
  const MutexLock lock(mutex_);
  const uint64_t reach = geometry_.l2_reach();
  const uint64_t index = at.value() / reach;
  // Returns the length up to the end of the `count` tables from this one on.
  const auto through = [&](uint64_t count) {
    const uint64_t first = index * reach;
    return std::min(
        limit, count > (UINT64_MAX - first) / reach ? limit : first + count * reach - at.value());
  };
  const auto lost = [&](uint64_t count, LossReason reason) {
    return Answer{extent_at(at, through(count), ExtentKind::kZero), reason};
  };
  if (index >= l1_entries_) {
    const Extent rest = extent_at(at, limit, ExtentKind::kUnallocated);
    return {rest, active_ ? std::optional(LossReason::kTable) : std::nullopt};
  }
  const HostOffset place = l1_table_ + index * 8;
  const auto word = l1_.word(place);
  if (!word) {
    const uint64_t unit_end = LenientReader::kUnit - place.value() % LenientReader::kUnit;
    return lost(unit_end / 8, LossReason::kTable);
  }
  if (*word == 0) {
    uint64_t count = 1;
    for (; index + count < l1_entries_ && through(count) < limit; ++count) {
      const auto next = l1_.word(place + count * 8);
      if (!next || *next != 0) break;
    }
    const uint64_t length = index + count == l1_entries_ ? limit : through(count);
    return {extent_at(at, length, ExtentKind::kUnallocated), std::nullopt};
  }
  const HostOffset table(*word & kEntryOffsetMask);
  if ((*word & kReservedInL1Entry) != 0 || geometry_.offset_in_cluster(table.value()) != 0)
    return lost(1, LossReason::kEntry);
  if (table.value() == 0)
    return {extent_at(at, through(1), ExtentKind::kUnallocated), std::nullopt};
  if (!is_checked_ && is_zero_table(table)) return lost(1, LossReason::kReferences);
  return look_up_entry(table, at, limit);
}

bool Qcow2SalvageLayer::is_zero_table(HostOffset table) const {
  if (zero_table_.first == table.value()) return zero_table_.second;
  bool zero = true;
  for (uint64_t i = 0; zero && i < geometry_.cluster_size() / 8; ++i)
    zero = l2_.word(table + i * 8) == std::optional<uint64_t>(0);
  zero_table_ = {table.value(), zero};
  return zero;
}

Qcow2SalvageLayer::Answer Qcow2SalvageLayer::look_up_entry(HostOffset table, GuestOffset at,
                                                           uint64_t limit) const {
  const ClusterIndex cluster = geometry_.cluster_of(at);
  const uint64_t entry_size = geometry_.l2_entry_size();
  const HostOffset place = table + geometry_.l2_index(cluster) * entry_size;
  const auto up_to = [&](uint64_t clusters) {
    return std::min(limit,
                    clusters * geometry_.cluster_size() - geometry_.offset_in_cluster(at.value()));
  };
  const auto lost = [&](uint64_t clusters, LossReason reason) {
    return Answer{extent_at(at, up_to(clusters), ExtentKind::kZero), reason};
  };
  const std::byte* const bytes = l2_.get(place, entry_size);
  if (bytes == nullptr) {
    const uint64_t unit_end = LenientReader::kUnit - place.value() % LenientReader::kUnit;
    return lost(unit_end / entry_size, LossReason::kTable);
  }
  const L2Entry entry = load_l2_entry({bytes, entry_size}, 0, geometry_.extended_l2());
  if (!entry.compressed() && (entry.word & kReservedInEntry) != 0)
    return lost(1, LossReason::kEntry);
  const uint64_t unit = geometry_.subcluster_size();
  const uint64_t inside = geometry_.offset_in_cluster(at.value());
  const auto subcluster = static_cast<unsigned>(inside / unit);
  const auto mapping = qcow2_->decode(entry, cluster, subcluster);
  if (!mapping) return lost(1, LossReason::kEntry);
  Extent extent = extent_at(at, std::min(limit, unit - inside % unit), mapping->kind);
  extent.preallocated = mapping->preallocated;
  extent.host = mapping->host;
  if (mapping->kind == ExtentKind::kCompressed) {
    extent.compressed_length = mapping->compressed_length;
    extent.length = up_to(1);
  } else if (mapping->kind == ExtentKind::kData || mapping->preallocated) {
    extent.host += inside;
  }
  return {extent, std::nullopt};
}

}  // namespace vc::qcow2
