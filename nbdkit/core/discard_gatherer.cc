#include "nbdkit/core/discard_gatherer.h"

#include <algorithm>
#include <utility>

namespace vc::nbdkit {

using Kind = DiscardGatherer::Piece::Kind;

DiscardGatherer::Statistics& DiscardGatherer::Statistics::operator+=(const Statistics& other) {
  trims += other.trims;
  trimmed_bytes += other.trimmed_bytes;
  sent += other.sent;
  sent_bytes += other.sent_bytes;
  joined_bytes += other.joined_bytes;
  fragments += other.fragments;
  fragment_bytes += other.fragment_bytes;
  overwritten_bytes += other.overwritten_bytes;
  dropped_bytes += other.dropped_bytes;
  held += other.held;
  held_bytes += other.held_bytes;
  return *this;
}

uint64_t DiscardGatherer::round_down(uint64_t offset, uint64_t unit) const {
  // The end of the disk counts as a boundary.
  return offset == options_.size ? offset : offset & ~(unit - 1);
}

uint64_t DiscardGatherer::round_up(uint64_t offset, uint64_t unit) const {
  return std::min(options_.size, (offset + unit - 1) & ~(unit - 1));
}

// Returns the range with all held ranges that touch it, on both sides.
ByteRange DiscardGatherer::grown(ByteRange range) const {
  for (bool more = true; more;) {
    more = false;
    for (const RangeSet* held : {&fresh_, &kept_}) {
      if (const auto before = held->ending_at(range.begin)) {
        range.begin = before->begin;
        more = true;
      }
      if (const auto later = held->beginning_at(range.end)) {
        range.end = later->end;
        more = true;
      }
    }
  }
  return range;
}

bool DiscardGatherer::fragments_are_of_use() const {
  return options_.zero_fragments || options_.smallest < options_.granularity;
}

// Returns the part of a range of fresh_ that the layer below can use.
std::optional<DiscardGatherer::Piece> DiscardGatherer::fragment(ByteRange range) const {
  if (!fragments_are_of_use()) return std::nullopt;
  if (options_.zero_fragments) return Piece{Kind::kZeroFragment, range.begin, range.length()};
  // A unit may have arrived in parts, with flushes in between.
  const uint64_t unit = options_.smallest;
  const ByteRange run = grown(range);
  const ByteRange cut{round_up(std::max(run.begin, round_down(range.begin, unit)), unit),
                      round_down(std::min(run.end, round_up(range.end, unit)), unit)};
  if (cut.empty()) return std::nullopt;
  return Piece{Kind::kTrimFragment, cut.begin, cut.length()};
}

// Holds a range that is not being written. Appends the granules that it completes to `pieces`.
void DiscardGatherer::hold(ByteRange range, std::vector<Piece>& pieces) {
  fresh_.remove(range);
  kept_.remove(range);
  const ByteRange run = grown(range);
  const uint64_t granularity = options_.granularity;
  // The whole granules of the run that the range overlaps.
  const ByteRange whole{
      round_up(std::max(run.begin, round_down(range.begin, granularity)), granularity),
      round_down(std::min(run.end, round_up(range.end, granularity)), granularity)};
  if (whole.empty()) {
    fresh_.add(range);
    return;
  }
  pieces.push_back({Kind::kGranules, whole.begin, whole.length()});
  const ByteRange asked{std::max(range.begin, whole.begin), std::min(range.end, whole.end)};
  statistics_.joined_bytes += whole.length() - asked.length();
  fresh_.remove(whole);
  kept_.add(whole);
  fresh_.add({range.begin, asked.begin});
  fresh_.add({asked.end, range.end});
}

// Removes a range when there are too many: first ranges that a flush has sent, then the range that
// has not grown for the longest time. Returns its unsent part that the layer below can use.
std::optional<DiscardGatherer::Piece> DiscardGatherer::drop_oldest() {
  const bool seen = !kept_.empty();
  RangeSet& from = seen ? kept_ : fresh_;
  const ByteRange range = from.oldest();
  const auto piece = seen ? std::nullopt : fragment(range);
  statistics_.dropped_bytes += from.remove(range);
  return piece;
}

bool DiscardGatherer::over_limit() const {
  return fresh_.count() + kept_.count() > options_.limit;
}

// Removes a range from the held ones. Returns the number of bytes that were held.
uint64_t DiscardGatherer::forget(ByteRange range) {
  const uint64_t bytes = fresh_.remove(range) + kept_.remove(range);
  // The removal may have split a range. If another range must be dropped for it, nothing is sent: a
  // write must not send trims.
  if (over_limit()) drop_oldest();
  return bytes;
}

bool DiscardGatherer::being_sent(ByteRange range) const {
  for (const Batch* batch : batches_) {
    batch->gatherer_.mutex_.assert_held();  // it is this gatherer
    for (size_t i = batch->at_; i < batch->pieces_.size(); ++i) {
      const Piece& piece = batch->pieces_[i];
      if (range.overlaps({piece.offset, piece.offset + piece.length})) return true;
    }
  }
  return false;
}

DiscardGatherer::Writing DiscardGatherer::begin_write(uint64_t offset, uint64_t length) {
  return Writing(*this, offset, length);
}

DiscardGatherer::Batch DiscardGatherer::trim(uint64_t offset, uint64_t length) {
  const MutexLock lock(mutex_);
  ++statistics_.trims;
  statistics_.trimmed_bytes += length;
  std::vector<Piece> pieces;
  offset = std::min(offset, options_.size);
  RangeSet ranges;
  ranges.add({offset, offset + std::min(length, options_.size - offset)});
  for (const Writing* it : writings_) ranges.remove(it->range_);
  for (auto it = ranges.first_from(0); it; it = ranges.first_from(it->end)) hold(*it, pieces);
  while (over_limit())
    if (const auto piece = drop_oldest()) pieces.push_back(*piece);
  return Batch(*this, std::move(pieces), false);
}

DiscardGatherer::Batch DiscardGatherer::flush() {
  const MutexLock lock(mutex_);
  return Batch(*this, {}, fragments_are_of_use());
}

DiscardGatherer::Statistics DiscardGatherer::statistics() const {
  const MutexLock lock(mutex_);
  Statistics now = statistics_;
  now.held = fresh_.count() + kept_.count();
  now.held_bytes = fresh_.bytes() + kept_.bytes();
  return now;
}

DiscardGatherer::Writing::Writing(DiscardGatherer& gatherer, uint64_t offset, uint64_t length)
    : gatherer_(gatherer), range_{offset, offset + length} {
  MutexLock lock(gatherer.mutex_);
  // Must precede the wait: trims from now on exclude our bytes.
  gatherer.writings_.push_back(this);
  gatherer.statistics_.overwritten_bytes += gatherer.forget(range_);
  if (!gatherer.being_sent(range_)) return;
  ++gatherer.waiting_;
  while (gatherer.being_sent(range_)) gatherer.sent_.wait(lock);
  --gatherer.waiting_;
}

DiscardGatherer::Writing::~Writing() {
  const MutexLock lock(gatherer_.mutex_);
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
  const MutexLock lock(gatherer_.mutex_);
  auto& batches = gatherer_.batches_;
  *std::find(batches.begin(), batches.end(), this) = batches.back();
  batches.pop_back();
  for (; at_ < pieces_.size(); ++at_) {
    const Piece& it = pieces_[at_];
    gatherer_.forget({it.offset, it.offset + it.length});
  }
  if (gatherer_.waiting_ > 0) gatherer_.sent_.notify_all();
}

// Makes the next fragment of a flush the only piece, if there is one. Visits each fragment once, so
// that concurrent trims cannot keep a flush busy forever.
bool DiscardGatherer::Batch::find_fragment() {
  while (cursor_) {
    const auto range = gatherer_.fresh_.first_from(*cursor_);
    if (!range) break;
    cursor_ = range->end;
    const auto piece = gatherer_.fragment(*range);
    gatherer_.fresh_.remove(*range);
    gatherer_.kept_.add(*range);
    if (piece) {
      pieces_.assign(1, *piece);
      at_ = 0;
      return true;
    }
  }
  return false;
}

std::optional<DiscardGatherer::Piece> DiscardGatherer::Batch::next() {
  const MutexLock lock(gatherer_.mutex_);
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

}  // namespace vc::nbdkit
