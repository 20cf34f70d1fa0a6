#include "copy/sink/nbd_sink.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>

#include "base/aligned_buffer.h"
#include "base/poll_interval.h"
#include "base/rounding.h"

namespace vc::copy {

using Kind = Chunk::Cluster::Kind;

namespace {

unsigned cluster_bits(uint64_t granularity, uint64_t minimum) {
  return static_cast<unsigned>(std::countr_zero(std::max(granularity, minimum)));
}

uint64_t digest(const std::byte* bytes, uint64_t length) {
  return XXH3_64bits(bytes, length);
}

}  // namespace

// A lane, leased for one chunk.
class NbdSink::Lease {
 public:
  Lease(NbdSink& sink, Lane* lane) : sink_(sink), lane_(lane) {}
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease() { sink_.give_back(lane_, good_); }

  // Ends the work on the lane. After an error, the lane is not used again.
  Result<void> end(Result<void> result) {
    good_ = result.has_value();
    if (good_ || !lane_->session->given_up()) return result;
    return fail(
        Error::protocol(result.error().errnum(),
                        result.error().message() +
                            ": the copy on the server is incomplete: run the command again"));
  }

 private:
  NbdSink& sink_;
  Lane* const lane_;
  bool good_ = false;
};

NbdSink::NbdSink(std::string name, const Options& options, const nbd::NbdLimits& limits,
                 uint64_t size, const Stop& stop)
    : name_(std::move(name)),
      options_(options),
      limits_(limits),
      size_(size),
      stop_(stop),
      geometry_(cluster_bits(options.granularity, limits.minimum), false),
      writer_(limits, {options.tuning, false}),
      zeroed_(options.destination_is_zero) {}

Result<std::unique_ptr<NbdSink>> NbdSink::open(const nbd::NbdTarget& target, const Options& options,
                                               uint64_t size, const Stop& stop) {
  ASSIGN_OR_RETURN(const auto endpoint, nbd::NbdEndpoint::open(target, stop));
  const std::string context = LIBNBD_CONTEXT_BASE_ALLOCATION;
  ASSIGN_OR_RETURN(auto first, nbd::NbdSession::open(endpoint, {context}, options.tuning, stop));
  const nbd::NbdLimits limits = first->limits();
  if (limits.read_only)
    return fail(Error::protocol(
        EROFS, fmt::format("{}: the server allows no writes: start it without its read-only option",
                           target.name())));
  if (limits.size < size)
    return fail(Error::protocol(
        ENOSPC, fmt::format("{}: the disk of the server has {} bytes, too few for {} bytes",
                            target.name(), limits.size, size)));
  std::unique_ptr<NbdSink> sink(new NbdSink(target.name(), options, limits, size, stop));
  if (!sink->zeroed_ && !options.update) RETURN_IF_ERROR(sink->zero_all(*first));
  const auto add = [&](std::unique_ptr<nbd::NbdSession> session) {
    sink->lanes_.push_back(
        std::make_unique<Lane>(Lane{std::move(session), nbd::NbdStatus(context, limits.minimum)}));
    Lane* const lane = sink->lanes_.back().get();
    lane->session->set_check(
        [it = sink.get(), lane](nbd::NbdSession&) { return it->check_unflushed(*lane); });
    const MutexLock lock(sink->mutex_);
    sink->free_.push_back(lane);
  };
  add(std::move(first));
  for (unsigned i = 1; limits.multi_conn && i < options.tuning.connections; ++i) {
    ASSIGN_OR_RETURN(auto next, nbd::NbdSession::open(endpoint, {context}, options.tuning, stop));
    add(std::move(next));
  }
  return sink;
}

// If the whole disk reads as zeros, or can be zeroed quickly, gaps need no writes.
Result<void> NbdSink::zero_all(nbd::NbdSession& session) {
  const uint64_t end = std::min(round_up(size_, limits_.minimum), limits_.size);
  nbd::NbdStatus status(LIBNBD_CONTEXT_BASE_ALLOCATION, limits_.minimum);
  std::vector<nbd::NbdStatus::Stretch> stretches;
  uint64_t at = 0;
  for (bool zero = true; zero && at < end;) {
    stretches.clear();
    RETURN_IF_ERROR(status.ask(session, at, end - at, stretches));
    for (const nbd::NbdStatus::Stretch& it : stretches) {
      zero = zero && it.known && (it.flags & nbd::kStatusZero) != 0;
      if (zero) at = it.at + it.length;
    }
  }
  zeroed_ = at == end;
  if (!zeroed_) {
    ASSIGN_OR_RETURN(zeroed_, writer_.zero_fast(session, end));
  }
  // Flushes, so that the zeros are durable.
  if (!zeroed_ || !limits_.can_flush) return {};
  return session.connection().flush_now();
}

Result<void> NbdSink::place(Chunk& chunk) {
  chunk.gap = end_;
  end_ = chunk.end();
  return {};
}

void NbdSink::add_zeros(std::vector<Piece>& pieces, uint64_t begin, uint64_t end) const {
  if (zeroed_ || begin >= end) return;
  if (!pieces.empty() && !pieces.back().bytes && pieces.back().at + pieces.back().length == begin)
    pieces.back().length += end - begin;
  else
    pieces.push_back({begin, end - begin, nullptr});
}

Result<void> NbdSink::write(const Chunk& chunk) {
  std::vector<Piece> pieces;
  const uint64_t cluster_size = geometry_.cluster_size();
  const uint64_t start = chunk.begin().value();
  // Writes a partial last block as a whole: the chunk has zeros past the end of the disk.
  const uint64_t end = std::min(round_up(chunk.end().value(), limits_.minimum), limits_.size);
  if (!options_.update) add_zeros(pieces, chunk.gap.value(), start);
  for (size_t i = 0; i < chunk.clusters.size(); ++i) {
    const uint64_t at = start + i * cluster_size;
    const uint64_t stop = std::min(at + cluster_size, end);
    const Kind kind = chunk.clusters[i].kind;
    if (kind == Kind::kCompressed)
      return fail(Error::invalid(name_ + ": compressed clusters cannot be written to a server"));
    if (kind == Kind::kHole && options_.update) continue;
    if (kind != Kind::kData) {
      add_zeros(pieces, at, stop);
      continue;
    }
    if (i > 0 && chunk.clusters[i - 1].kind == Kind::kData)
      pieces.back().length += stop - at;
    else
      pieces.push_back({at, stop - at, chunk.bytes.data() + i * cluster_size});
  }
  return send(pieces);
}

Result<void> NbdSink::finish() {
  std::vector<Piece> pieces;
  if (!options_.update)
    add_zeros(pieces, end_.value(), std::min(round_up(size_, limits_.minimum), limits_.size));
  RETURN_IF_ERROR(send(pieces));
  if (!limits_.can_flush) return {};
  ASSIGN_OR_RETURN(Lane* const lane, lease());
  Lease lease(*this, lane);
  return lease.end(flush(*lane));
}

Result<NbdSink::Lane*> NbdSink::lease() {
  MutexLock lock(mutex_);
  while (free_.empty() || failed_) {
    if (failed_ || stop_.requested()) return fail(Error::cancelled());
    given_back_.wait_for(lock, kPollInterval);
  }
  Lane* const lane = free_.back();
  free_.pop_back();
  return lane;
}

void NbdSink::give_back(Lane* lane, bool good) {
  {
    const MutexLock lock(mutex_);
    if (good) free_.push_back(lane);
    failed_ |= !good;
  }
  given_back_.notify_one();
}

// If zeros would have to be written, omits ranges that already read as zeros.
Result<std::vector<nbd::NbdWriter::Piece>> NbdSink::without_known_zeros(
    Lane& lane, const std::vector<Piece>& pieces) {
  std::vector<Piece> left;
  std::vector<nbd::NbdStatus::Stretch> stretches;
  for (const Piece& piece : pieces) {
    if (piece.bytes) {
      left.push_back(piece);
      continue;
    }
    const uint64_t end = piece.at + piece.length;
    for (uint64_t at = piece.at; at < end;) {
      stretches.clear();
      RETURN_IF_ERROR(lane.status.ask(*lane.session, at, end - at, stretches));
      for (const nbd::NbdStatus::Stretch& it : stretches) {
        at = it.at + it.length;
        if (it.known && (it.flags & nbd::kStatusZero) != 0) continue;
        const uint64_t from = round_down(it.at, limits_.minimum);
        left.push_back({from, std::min(round_up(at, limits_.minimum), end) - from, nullptr});
      }
    }
  }
  return left;
}

Result<void> NbdSink::send(const std::vector<Piece>& pieces) {
  if (pieces.empty()) return {};
  ASSIGN_OR_RETURN(Lane* const lane, lease());
  Lease lease(*this, lane);
  return lease.end(send_on(*lane, pieces));
}

Result<void> NbdSink::send_on(Lane& lane, const std::vector<Piece>& pieces) {
  std::vector<Unflushed::Record> records;
  if (!limits_.can_flush)
    wrote_ = true;
  else if (options_.tuning.retries > 0)
    for (const Piece& piece : pieces)
      records.push_back({piece.at, piece.length, !piece.bytes,
                         piece.bytes ? digest(piece.bytes, piece.length) : 0});
  while (true) {
    const uint64_t epoch = unflushed_.epoch();
    if (writer_.can_zero()) {
      RETURN_IF_ERROR(writer_.send(*lane.session, pieces));
    } else {
      ASSIGN_OR_RETURN(const auto needed, without_known_zeros(lane, pieces));
      RETURN_IF_ERROR(writer_.send(*lane.session, needed));
    }
    if (unflushed_.add(epoch, records)) break;
  }
  if (limits_.can_flush && unflushed_.claim_flush()) return flush(lane);
  return {};
}

Result<void> NbdSink::flush(Lane& lane) {
  nbd::NbdSession& session = *lane.session;
  while (true) {
    unflushed_.flushing();
    auto done = session.connection().flush_now();
    if (done) {
      session.answered();
      unflushed_.flushed();
      return {};
    }
    if (!session.is_loss(done.error())) return done;
    RETURN_IF_ERROR(session.restore(std::move(done).error()));
  }
}

// Checks unflushed writes after a reconnect: the server may have lost them.
Result<void> NbdSink::check_unflushed(Lane& lane) {
  const std::vector<Unflushed::Record> records = unflushed_.begin_epoch();
  const auto lost = [&](uint64_t at) {
    return fail(Error::protocol(
        EIO, fmt::format("{}: the server has lost data that was written at {:#x}", name_, at)));
  };
  if (!limits_.can_flush && wrote_)
    return fail(
        Error::protocol(EIO, name_ + ": the connection was lost, and without flush requests it is "
                                     "unknown what the server has kept"));
  nbd::NbdSession& session = *lane.session;
  std::vector<Piece> zeros;
  AlignedBuffer bytes;
  const uint64_t most = limits_.request(options_.tuning.request_size);
  for (const Unflushed::Record& record : records) {
    if (record.zero) {
      zeros.push_back({record.at, record.length, nullptr});
      continue;
    }
    if (bytes.size() < record.length) bytes = AlignedBuffer(record.length);
    for (uint64_t done = 0; done < record.length;) {
      const uint64_t length = std::min(record.length - done, most);
      auto read = session.connection().read_now({bytes.data() + done, length}, record.at + done);
      if (!read) {
        if (session.is_loss(read.error())) return session.restore(std::move(read).error());
        return read;
      }
      done += length;
    }
    if (digest(bytes.data(), record.length) != record.digest) return lost(record.at);
  }
  if (!writer_.can_zero()) {
    ASSIGN_OR_RETURN(zeros, without_known_zeros(lane, zeros));
  }
  return writer_.send(session, zeros);
}

}  // namespace vc::copy
