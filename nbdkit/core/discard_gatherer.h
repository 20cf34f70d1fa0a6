// Gathers trims that are too small, or not aligned, for the layer below, until they make whole
// granules.
//
// What the layer can free is a granule (a cluster): what of a trim covers whole ones goes down at
// once, and the ragged rest is held until other trims complete its granule.  What went down is
// remembered, too: when a part of a freed granule is written and trimmed again, the granule is
// complete again.  There is one gatherer for each disk, not for each connection.
//
// A trim promises nothing, but a write does: a byte that was written must not be trimmed by what
// the client asked for earlier.  So
//
//  * a write (or zero request) takes its range out of all that is held before it goes down, and
//    waits for a trim of it that is on its way;
//  * a trim leaves out what is being written at that moment, as though it had come first.
//
// Hence no byte is at once under a write and held, or under a write and being sent; and as only
// writes wait, for I/O that waits for nobody, nothing can lock up.  (So whoever has a Batch must
// not begin a write before it is gone.)
//
// The gatherer decides, and never does I/O: trim () and flush () lend out a Batch of pieces, and
// whoever asked sends them.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "nbdkit/core/range_set.h"

namespace filters {

class DiscardGatherer {
 public:
  struct Options {
    uint64_t size = 0;         // of the disk, bytes; its last granule may be a short one
    uint64_t granularity = 0;  // bytes, a power of two
    // A fragment of a granule is cut to multiples of this, a power of two, before it is given out;
    // a granularity or more: fragments are of no use below.  Bytes.
    uint64_t smallest = 0;
    size_t limit = kDefaultLimit;  // of held ranges; each takes some 150 bytes
    // Fragments are to be zeroed, all of them, instead of trimmed.
    bool zero_fragments = false;
  };
  static constexpr size_t kDefaultLimit = 16384;

  struct Piece {
    enum class Kind {
      kGranules,      // trim; an error is one of the client's request
      kTrimFragment,  // trim; an error is of no consequence
      kZeroFragment,  // zero, the layer may trim; an error is of no consequence
    };
    Kind kind;
    uint64_t offset;  // bytes
    uint64_t length;  // bytes, at least 1, at most kMaxPiece
  };
  static constexpr uint64_t kMaxPiece = uint64_t{1} << 31;

  // Since the beginning, but for what is held now.
  struct Statistics {
    uint64_t trims = 0;              // requests that came in
    uint64_t trimmed_bytes = 0;      // of those
    uint64_t sent = 0;               // pieces of whole granules given out
    uint64_t sent_bytes = 0;         // of those
    uint64_t joined_bytes = 0;       // of those, what was held, and not in the trim that did it
    uint64_t fragments = 0;          // pieces of other kinds given out
    uint64_t fragment_bytes = 0;     // of those
    uint64_t overwritten_bytes = 0;  // were held, and then written
    uint64_t dropped_bytes = 0;      // no longer held because of the limit
    uint64_t held = 0;               // ranges: fragments, and what has been trimmed below
    uint64_t held_bytes = 0;         // of those

    Statistics& operator+=(const Statistics& other);
  };

  class Writing;
  class Batch;

  explicit DiscardGatherer(const Options& options) : options_(options) {}
  DiscardGatherer(const DiscardGatherer&) = delete;
  DiscardGatherer& operator=(const DiscardGatherer&) = delete;

  // To be held by whoever writes or zeroes the range, from before the request goes down until it is
  // done.  Waits for a trim of these bytes that is on its way.
  [[nodiscard]] Writing begin_write(uint64_t offset, uint64_t length);

  // Takes in a trim request, and lends out what is to be sent for it now.
  [[nodiscard]] Batch trim(uint64_t offset, uint64_t length);

  // Lends out, one by one, the fragments that came since the last flush, as far as they are of use
  // below.  They stay held, too, for later trims to complete their granules.
  [[nodiscard]] Batch flush();

  Statistics statistics() const;

 private:
  uint64_t round_down(uint64_t offset, uint64_t unit) const;
  uint64_t round_up(uint64_t offset, uint64_t unit) const;
  Range grown(Range range) const;
  bool fragments_are_of_use() const;
  std::optional<Piece> fragment(Range range) const;
  void hold(Range range, std::vector<Piece>& pieces);
  std::optional<Piece> drop_oldest();
  bool over_limit() const;
  uint64_t forget(Range range);
  bool being_sent(Range range) const;

  const Options options_;

  mutable std::mutex mutex_;
  std::condition_variable sent_;  // a piece is no longer being sent

  // All below: guarded by mutex_.
  // Invariant: disjoint; a granule that is whole in both together has been given out.
  RangeSet fresh_;    // fragments since the last flush
  RangeSet settled_;  // fragments that a flush has given out, if that was of use, and granules
  // Invariant: they overlap nothing that is held, and nothing that is being sent once their
  // constructor is through.
  std::vector<const Writing*> writings_;
  std::vector<const Batch*> batches_;
  unsigned waiting_ = 0;  // writes
  Statistics statistics_;
};

// A write under way.
class DiscardGatherer::Writing {
 public:
  Writing(DiscardGatherer& gatherer, uint64_t offset, uint64_t length);
  Writing(const Writing&) = delete;
  Writing& operator=(const Writing&) = delete;
  ~Writing();

 private:
  friend class DiscardGatherer;

  DiscardGatherer& gatherer_;
  const Range range_;
};

// What is to be sent now.  Until a piece is done, writes to its bytes wait.
//
//   for (auto piece = batch.next(); piece; piece = batch.next()) …
//
// Who gives up after an error leaves the rest: that, and what failed, is no longer held.
class DiscardGatherer::Batch {
 public:
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  ~Batch();

  // The next piece; the one before is done, whether that went well or not.
  std::optional<Piece> next();

 private:
  friend class DiscardGatherer;
  // Under the gatherer's lock.
  Batch(DiscardGatherer& gatherer, std::vector<Piece> pieces, bool flush);

  bool find_fragment();

  DiscardGatherer& gatherer_;
  std::vector<Piece> pieces_;  // those from at_ on are being sent
  size_t at_ = 0;
  std::optional<uint64_t> cursor_;  // in a flush: fragments before it have been given out
  uint64_t given_ = 0;              // bytes at the head of pieces_[at_]
};

}  // namespace filters
