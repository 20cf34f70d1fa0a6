// Gathers trims that are too small or unaligned for the layer below, until they form whole
// granules.
//
// A granule (a cluster) is the unit that the layer below can deallocate. Whole granules of a trim
// are sent at once. The rest is held until other trims complete its granule. Sent ranges are
// remembered, too: when a part of a deallocated granule is written and trimmed again, the granule
// is complete again. There is one gatherer for each disk, not for each connection.
//
// A trim is a hint, but a write is a promise: an earlier trim must not discard bytes that were
// written later. Therefore
//
// * a write (or zero request) removes its range from all held ranges before it is sent, and waits
//   for a trim of the range that is being sent;
// * a trim excludes what is being written at that moment, as if the trim had come first.
//
// So no byte is both under a write and held, or under a write and being sent. Only writes wait,
// and only for I/O that waits for nothing, so deadlock is impossible. (A thread that owns a Batch
// must not begin a write before the Batch is destroyed.)
//
// The gatherer decides and does no I/O: trim() and flush() return a Batch of pieces, and the caller
// sends them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/mutex.h"
#include "nbdkit/core/range_set.h"

namespace vc::nbdkit {

class DiscardGatherer {
 public:
  struct Options {
    uint64_t size = 0;         // of the disk, bytes; the last granule may be shorter
    uint64_t granularity = 0;  // bytes, a power of two
    // Fragments of a granule shrink to multiples of this before they are sent. Bytes, a power
    // of two; if it is at least the granularity, fragments are not sent.
    uint64_t smallest = 0;
    size_t limit = kDefaultLimit;  // of held ranges; each takes about 150 bytes
    // Fragments are zeroed, including unaligned ones, instead of trimmed.
    bool zero_fragments = false;
  };
  static constexpr size_t kDefaultLimit = 16384;

  struct Piece {
    enum class Kind {
      kGranules,      // trim; an error fails the client's request
      kTrimFragment,  // trim; errors are ignored
      kZeroFragment,  // zero, the layer may trim; errors are ignored
    };
    Kind kind;
    uint64_t offset;  // bytes
    uint64_t length;  // bytes, at least 1, at most kMaxPiece
  };
  static constexpr uint64_t kMaxPiece = uint64_t{1} << 31;

  // Totals since the start, except for what is held now.
  struct Statistics {
    uint64_t trims = 0;          // requests received
    uint64_t trimmed_bytes = 0;  // bytes of `trims`
    uint64_t sent = 0;           // pieces of whole granules sent
    uint64_t sent_bytes = 0;     // bytes of `sent`
    // part of sent_bytes that was held, not in the trim that completed it
    uint64_t joined_bytes = 0;
    uint64_t fragments = 0;          // pieces of other kinds sent
    uint64_t fragment_bytes = 0;     // bytes of `fragments`
    uint64_t overwritten_bytes = 0;  // held, then written
    uint64_t dropped_bytes = 0;      // no longer held because of the limit
    uint64_t held = 0;               // ranges held: fragments, and ranges that were trimmed below
    uint64_t held_bytes = 0;         // bytes of `held`

    Statistics& operator+=(const Statistics& other);
  };

  class Writing;
  class Batch;

  explicit DiscardGatherer(const Options& options) : options_(options) {}
  DiscardGatherer(const DiscardGatherer&) = delete;
  DiscardGatherer& operator=(const DiscardGatherer&) = delete;

  // Begins a write or zero request. Waits for a trim of these bytes that is being sent. The caller
  // must hold the result from before the request is sent until it is done.
  [[nodiscard]] Writing begin_write(uint64_t offset, uint64_t length);

  // Takes a trim request. Returns the pieces to send for it now.
  [[nodiscard]] Batch trim(uint64_t offset, uint64_t length);

  // Returns, one by one, the fragments since the last flush that the layer below can use. They stay
  // held, so that later trims can complete their granules.
  [[nodiscard]] Batch flush();

  Statistics statistics() const;

 private:
  uint64_t round_down(uint64_t offset, uint64_t unit) const;
  uint64_t round_up(uint64_t offset, uint64_t unit) const;
  ByteRange grown(ByteRange range) const REQUIRES(mutex_);
  bool fragments_are_of_use() const;
  std::optional<Piece> fragment(ByteRange range) const REQUIRES(mutex_);
  void hold(ByteRange range, std::vector<Piece>& pieces) REQUIRES(mutex_);
  std::optional<Piece> drop_oldest() REQUIRES(mutex_);
  bool over_limit() const REQUIRES(mutex_);
  uint64_t forget(ByteRange range) REQUIRES(mutex_);
  bool being_sent(ByteRange range) const REQUIRES(mutex_);

  const Options options_;

  mutable Mutex mutex_;
  ConditionVariable sent_;  // signaled when a piece is sent

  // Invariant: disjoint. A granule that is whole in both together has been sent.
  RangeSet fresh_ GUARDED_BY(mutex_);  // fragments since the last flush
  // fragments that a flush has sent (if the layer can use them), and granules
  RangeSet kept_ GUARDED_BY(mutex_);
  // Invariant: once constructed, they overlap nothing that is held or being sent.
  std::vector<const Writing*> writings_ GUARDED_BY(mutex_);
  std::vector<const Batch*> batches_ GUARDED_BY(mutex_);
  unsigned waiting_ GUARDED_BY(mutex_) = 0;  // number of waiting writes
  Statistics statistics_ GUARDED_BY(mutex_);
};

// A write in progress.
class DiscardGatherer::Writing {
 public:
  Writing(DiscardGatherer& gatherer, uint64_t offset, uint64_t length);
  Writing(const Writing&) = delete;
  Writing& operator=(const Writing&) = delete;
  ~Writing();

 private:
  friend class DiscardGatherer;

  DiscardGatherer& gatherer_;
  const ByteRange range_;
};

// Pieces to send now. Until a piece is done, writes to its bytes wait.
//
//   for (auto piece = batch.next(); piece; piece = batch.next()) …
//
// After an error, the caller may stop: the failed piece and all unsent pieces are no longer held.
class DiscardGatherer::Batch {
 public:
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  ~Batch();

  // Returns the next piece. Marks the previous piece as done, with or without success.
  std::optional<Piece> next();

 private:
  friend class DiscardGatherer;
  Batch(DiscardGatherer& gatherer, std::vector<Piece> pieces, bool flush) REQUIRES(gatherer.mutex_);

  bool find_fragment() REQUIRES(gatherer_.mutex_);

  DiscardGatherer& gatherer_;
  // those from at_ on are being sent
  std::vector<Piece> pieces_ GUARDED_BY(gatherer_.mutex_);
  size_t at_ GUARDED_BY(gatherer_.mutex_) = 0;
  // in a flush: fragments before it have been sent
  std::optional<uint64_t> cursor_ GUARDED_BY(gatherer_.mutex_);
  // bytes already returned at the head of pieces_[at_]
  uint64_t given_ GUARDED_BY(gatherer_.mutex_) = 0;
};

}  // namespace vc::nbdkit
