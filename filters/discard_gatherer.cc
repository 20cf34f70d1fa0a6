#include "filters/discard_gatherer.h"

#include <algorithm>
#include <utility>

namespace filters {

using Kind = DiscardGatherer::Piece::Kind;

uint64_t DiscardGatherer::round_down(uint64_t offset, uint64_t unit) const {
  // The end of the disk is as good as a boundary.
  return offset == options_.size ? offset : offset & ~(unit - 1);
}

uint64_t DiscardGatherer::round_up(uint64_t offset, uint64_t unit) const {
  return std::min(options_.size, (offset + unit - 1) & ~(unit - 1));
}

// With all that is held and touches it, on both sides.
Range DiscardGatherer::grown(Range range) const {
  for (bool more = true; more;) {
    more = false;
    for (const RangeSet* held : {&fresh_, &settled_}) {
      if (const auto before = held->ending_at(range.begin)) {
        range.begin = before->begin;
        more = true;
      }
      if (const auto behind = held->beginning_at(range.end)) {
        range.end = behind->end;
        more = true;
      }
    }
  }
  return range;
}

bool DiscardGatherer::fragments_are_of_use() const {
  return options_.zero_fragments || options_.smallest < options_.granularity;
}

// What of a held range is of use below.
std::optional<DiscardGatherer::Piece> DiscardGatherer::fragment(Range range) const {
  if (!fragments_are_of_use()) return std::nullopt;
  if (options_.zero_fragments) return Piece{Kind::kZeroFragment, range.begin, range.length()};
  const Range cut{round_up(range.begin, options_.smallest),
                  round_down(range.end, options_.smallest)};
  if (cut.empty()) return std::nullopt;
  return Piece{Kind::kTrimFragment, cut.begin, cut.length()};
}

// Takes in a range that is under no write: what it completes goes to `pieces`.
void DiscardGatherer::hold(Range range, std::vector<Piece>& pieces) {
  fresh_.remove(range);
  settled_.remove(range);
  const Range run = grown(range);
  const Range whole{round_up(run.begin, options_.granularity),
                    round_down(run.end, options_.granularity)};
  if (whole.empty()) {
    fresh_.add(range);
    return;
  }
  pieces.push_back({Kind::kGranules, whole.begin, whole.length()});
  statistics_.joined_bytes += fresh_.remove(whole) + settled_.remove(whole);
  fresh_.add({range.begin, std::min(range.end, whole.begin)});
  fresh_.add({std::max(range.begin, whole.end), range.end});
}

// Fragments that a flush has seen go first, then the ones that nothing was added to for the longest
// time.
void DiscardGatherer::keep_limit(std::vector<Piece>& pieces) {
  while (fresh_.count() + settled_.count() > options_.limit) {
    RangeSet& from = settled_.empty() ? fresh_ : settled_;
    const Range range = from.oldest();
    if (&from == &fresh_)
      if (const auto piece = fragment(range)) pieces.push_back(*piece);
    statistics_.dropped_bytes += from.remove(range);
  }
}

bool DiscardGatherer::being_sent(Range range) const {
  for (const Batch* batch : batches_)
    for (size_t i = batch->at_; i < batch->pieces_.size(); ++i) {
      const Piece& piece = batch->pieces_[i];
      if (range.overlaps({piece.offset, piece.offset + piece.length})) return true;
    }
  return false;
}

DiscardGatherer::Writing DiscardGatherer::begin_write(uint64_t offset, uint64_t length) {
  return Writing(*this, offset, length);
}

DiscardGatherer::Batch DiscardGatherer::trim(uint64_t offset, uint64_t length) {
  const std::lock_guard lock(mutex_);
  ++statistics_.trims;
  statistics_.trimmed_bytes += length;
  std::vector<Piece> pieces;
  offset = std::min(offset, options_.size);
  RangeSet ranges;
  ranges.add({offset, offset + std::min(length, options_.size - offset)});
  for (const Writing* it : writings_) ranges.remove(it->range_);
  for (auto it = ranges.first_from(0); it; it = ranges.first_from(it->end)) hold(*it, pieces);
  keep_limit(pieces);
  return Batch(*this, std::move(pieces), false);
}

DiscardGatherer::Batch DiscardGatherer::flush() {
  const std::lock_guard lock(mutex_);
  return Batch(*this, {}, fragments_are_of_use());
}

DiscardGatherer::Statistics DiscardGatherer::statistics() const {
  const std::lock_guard lock(mutex_);
  Statistics now = statistics_;
  now.held = fresh_.count() + settled_.count();
  now.held_bytes = fresh_.bytes() + settled_.bytes();
  return now;
}

DiscardGatherer::Writing::Writing(DiscardGatherer& gatherer, uint64_t offset, uint64_t length)
    : gatherer_(gatherer), range_{offset, offset + length} {
  std::unique_lock lock(gatherer.mutex_);
  // Before the wait: what is trimmed from now on leaves our bytes out.
  gatherer.writings_.push_back(this);
  gatherer.statistics_.overwritten_bytes +=
      gatherer.fresh_.remove(range_) + gatherer.settled_.remove(range_);
  if (!gatherer.being_sent(range_)) return;
  ++gatherer.waiting_;
  gatherer.sent_.wait(lock, [&] { return !gatherer.being_sent(range_); });
  --gatherer.waiting_;
}

DiscardGatherer::Writing::~Writing() {
  const std::lock_guard lock(gatherer_.mutex_);
  auto& writings = gatherer_.writings_;
  *std::find(writings.begin(), writings.end(), this) = writings.back();
  writings.pop_back();
}

DiscardGatherer::Batch::Batch(DiscardGatherer& gatherer, std::vector<Piece> pieces, bool flush)
    : gatherer_(gatherer), pieces_(std::move(pieces)) {
  if (flush) cursor_ = 0;
  gatherer_.batches_.push_back(this);
}

DiscardGatherer::Batch::~Batch() {
  const std::lock_guard lock(gatherer_.mutex_);
  auto& batches = gatherer_.batches_;
  *std::find(batches.begin(), batches.end(), this) = batches.back();
  batches.pop_back();
  if (gatherer_.waiting_ > 0) gatherer_.sent_.notify_all();
}

// Makes the next fragment of a flush the only piece, if there is one.  Each is looked at once, so
// that trims that come meanwhile do not keep a flush busy for ever.
bool DiscardGatherer::Batch::find_fragment() {
  while (cursor_) {
    const auto range = gatherer_.fresh_.first_from(*cursor_);
    if (!range) break;
    cursor_ = range->end;
    gatherer_.fresh_.remove(*range);
    gatherer_.settled_.add(*range);
    if (const auto piece = gatherer_.fragment(*range)) {
      pieces_.assign(1, *piece);
      at_ = 0;
      return true;
    }
  }
  return false;
}

std::optional<DiscardGatherer::Piece> DiscardGatherer::Batch::next() {
  const std::lock_guard lock(gatherer_.mutex_);
  if (at_ < pieces_.size() && given_ == pieces_[at_].length) {
    ++at_;
    given_ = 0;
    if (gatherer_.waiting_ > 0) gatherer_.sent_.notify_all();
  }
  if (at_ == pieces_.size() && !find_fragment()) return std::nullopt;
  const Piece& whole = pieces_[at_];
  const Piece piece{whole.kind, whole.offset + given_, std::min(kMaxPiece, whole.length - given_)};
  given_ += piece.length;
  auto& statistics = gatherer_.statistics_;
  if (piece.kind == Kind::kGranules) {
    ++statistics.sent;
    statistics.sent_bytes += piece.length;
  } else {
    ++statistics.fragments;
    statistics.fragment_bytes += piece.length;
  }
  return piece;
}

}  // namespace filters
