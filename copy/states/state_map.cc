#include "copy/states/state_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/rounding.h"
#include "qcow2/read/table_cache.h"

namespace vc::copy {

using qcow2::ClusterMap;
using qcow2::L2Entry;

namespace {

constexpr uint64_t kStatesCacheSize = 16 << 20;  // bytes
// With more states than this, slices are only in the cache.
constexpr size_t kMostWithSlices = 64;
// Empty L1 entries that are passed over at once.
constexpr uint64_t kEmptyAtOnce = 1 << 20;

// Returns what two entries of the same content have in common.
L2Entry content_of(L2Entry entry, bool extended) {
  if (entry.compressed()) return entry;
  if (!extended && entry.zero_flag()) return {qcow2::kEntryZero, 0};
  entry.word &= ~qcow2::kEntryCopied;
  return entry;
}

}  // namespace

Result<std::unique_ptr<StateMap>> StateMap::open(const std::shared_ptr<qcow2::Image>& image,
                                                 std::span<const qcow2::Snapshot> snapshots,
                                                 const qcow2::Geometry& destination,
                                                 Active active) {
  std::unique_ptr<StateMap> it(new StateMap(image->name(), image->geometry(), destination));
  const auto cache = std::make_shared<qcow2::TableCache>(kStatesCacheSize);
  const auto add = [&](HostOffset l1_table, uint32_t l1_entries, uint64_t size) -> Result<void> {
    State state;
    ASSIGN_OR_RETURN(state.map, ClusterMap::open(image->shared_storage(), cache, image->geometry(),
                                                 l1_table, l1_entries));
    state.size = size;
    it->states_.push_back(std::move(state));
    return {};
  };
  const qcow2::Header& header = image->header();
  RETURN_IF_ERROR(add(header.l1_table, header.l1_entries, active.size));
  for (const qcow2::Snapshot& snapshot : snapshots)
    RETURN_IF_ERROR(add(snapshot.l1_table, snapshot.l1_entries, snapshot.disk_size));
  it->set_active(std::move(active));
  return it;
}

void StateMap::set_active(Active active) {
  active_ = std::move(active);
  above_.reset();
  states_.front().size = active_.size;
}

StateMap::Span StateMap::span_of(ClusterIndex cluster) const {
  const uint64_t begin = destination_.start_of(cluster).value();
  return {begin, begin + destination_.cluster_size()};
}

StateMap::Span StateMap::span_of_table(uint64_t l1_index) const {
  const uint64_t begin = l1_index * destination_.l2_reach();
  return {begin, begin + destination_.l2_reach()};
}

Result<HostOffset> StateMap::table(State& state, uint64_t l1_index) {
  if (l1_index >= state.l1_index && l1_index < state.l1_end) return state.table;
  ASSIGN_OR_RETURN(const auto found, state.map->next_table(l1_index, l1_index + kEmptyAtOnce));
  state.l1_index = l1_index;
  const bool is_empty = found.index != l1_index;
  state.l1_end = is_empty ? found.index : l1_index + 1;
  state.table = is_empty ? HostOffset(0) : found.at;
  return state.table;
}

// Returns the slice with entry `index` of an L2 table.
Result<StateMap::Slice> StateMap::slice(State& state, HostOffset table, uint64_t index) {
  const uint64_t entries = state.map->slice_entries();
  const HostOffset at = table + round_down(index, entries) * source_.l2_entry_size();
  if (state.slice && state.slice_at == at) return state.slice;
  ASSIGN_OR_RETURN(Slice found,
                   with_context(state.map->slice_at(at),
                                fmt::format("{}: L2 table at {:#x}", name_, table.value())));
  if (states_.size() > kMostWithSlices) return found;
  state.slice_at = at;
  state.slice = std::move(found);
  return state.slice;
}

Result<bool> StateMap::equal_entries(State& a, State& b, uint64_t l1_index, uint64_t first,
                                     uint64_t end) {
  ASSIGN_OR_RETURN(const HostOffset table_a, table(a, l1_index));
  ASSIGN_OR_RETURN(const HostOffset table_b, table(b, l1_index));
  if (table_a == table_b) return true;
  const bool extended = source_.extended_l2();
  const uint64_t entries = a.map->slice_entries();
  while (first < end) {
    const uint64_t stop = std::min(end, round_down(first, entries) + entries);
    Slice slice_a;
    Slice slice_b;
    if (table_a.value() != 0) {
      ASSIGN_OR_RETURN(slice_a, slice(a, table_a, first));
    }
    if (table_b.value() != 0) {
      ASSIGN_OR_RETURN(slice_b, slice(b, table_b, first));
    }
    const auto entry = [&](const Slice& of, uint64_t index) {
      return of ? content_of(qcow2::load_l2_entry(*of, index % entries, extended), extended)
                : L2Entry{};
    };
    for (; first < stop; ++first)
      if (!qcow2::is_same_entry(entry(slice_a, first), entry(slice_b, first))) return false;
  }
  return true;
}

// Returns whether the active disk has content of its own in a part of [begin, end).
Result<bool> StateMap::is_own(uint64_t begin, uint64_t end) {
  if (active_.unused && active_.unused->meets(begin, end)) return true;
  if (!active_.above) return false;
  for (uint64_t at = begin; at < std::min(end, active_.above->size());) {
    if (!above_ || at < above_->guest.value() || at >= above_->end().value()) {
      std::vector<qcow2::Extent> extents;
      RETURN_IF_ERROR(active_.above->map(GuestOffset(at), active_.above->size() - at, extents, 1));
      above_ = extents.front();
    }
    if (above_->kind != qcow2::ExtentKind::kUnallocated) return true;
    at = above_->end().value();
  }
  return false;
}

Result<bool> StateMap::equal(size_t a, size_t b, const Span& span) {
  const uint64_t end = std::min(span.end, states_[a].size);
  if (end != std::min(span.end, states_[b].size)) return false;
  if (end <= span.begin) return true;
  if (a == 0 || b == 0) {
    ASSIGN_OR_RETURN(const bool own, is_own(span.begin, end));
    if (own) return false;
  }
  const uint64_t last = source_.cluster_of(GuestOffset(end - 1)).value();
  for (uint64_t at = source_.cluster_of(GuestOffset(span.begin)).value(); at <= last;) {
    const uint64_t l1_index = source_.l1_index(ClusterIndex(at));
    const uint64_t begin_of_table = l1_index * source_.l2_entries();
    const uint64_t stop = std::min(last + 1, begin_of_table + source_.l2_entries());
    ASSIGN_OR_RETURN(const bool same, equal_entries(states_[a], states_[b], l1_index,
                                                    at - begin_of_table, stop - begin_of_table));
    if (!same) return false;
    at = stop;
  }
  return true;
}

Result<size_t> StateMap::first_equal(size_t state, const Span& span, size_t from) {
  for (size_t other = from; other < state; ++other) {
    ASSIGN_OR_RETURN(const bool same, equal(other, state, span));
    if (same) return other;
  }
  return state;
}

Result<uint64_t> StateMap::count_equal(size_t state, const Span& span) {
  uint64_t count = 1;
  for (size_t other = state + 1; other < states_.size(); ++other) {
    ASSIGN_OR_RETURN(const bool same, equal(state, other, span));
    count += same;
  }
  return count;
}

Result<size_t> StateMap::first_with(size_t state, ClusterIndex cluster) {
  return first_equal(state, span_of(cluster), 0);
}

// A table of the active disk has entries that a snapshot does not, if all clusters are allocated.
Result<size_t> StateMap::first_with_table(size_t state, uint64_t l1_index) {
  return first_equal(state, span_of_table(l1_index), active_.preallocated ? 1 : 0);
}

Result<uint64_t> StateMap::states_with(size_t state, ClusterIndex cluster) {
  return count_equal(state, span_of(cluster));
}

Result<uint64_t> StateMap::states_with_table(size_t state, uint64_t l1_index) {
  if (state == 0 && active_.preallocated) return uint64_t{1};
  return count_equal(state, span_of_table(l1_index));
}

Result<bool> StateMap::has_table(size_t state, uint64_t l1_index) {
  const Span span = span_of_table(l1_index);
  const uint64_t reach = source_.l2_reach();
  for (uint64_t i = span.begin / reach; i * reach < std::min(span.end, states_[state].size); ++i) {
    ASSIGN_OR_RETURN(const HostOffset at, table(states_[state], i));
    if (at.value() != 0) return true;
  }
  return false;
}

Result<L2Entry> StateMap::entry(size_t state, ClusterIndex cluster) {
  State& it = states_[state];
  ASSIGN_OR_RETURN(const HostOffset at, table(it, source_.l1_index(cluster)));
  if (at.value() == 0) return L2Entry{};
  const uint64_t index = source_.l2_index(cluster);
  ASSIGN_OR_RETURN(const Slice bytes, slice(it, at, index));
  return qcow2::load_l2_entry(*bytes, index % it.map->slice_entries(), source_.extended_l2());
}

}  // namespace vc::copy
