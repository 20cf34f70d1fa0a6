#include "copy/source/nbd_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <deque>
#include <list>

#include "base/rounding.h"
#include "copy/source/chunk_feed.h"
#include "nbd/limits.h"

namespace vc::copy {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

// Maximum extents per map() call.
constexpr size_t kStatusExtentsAtOnce = 1 << 14;

// A chunk that is being read.
struct Fetching {
  Chunk* chunk;
  unsigned left = 0;  // unanswered requests
};

struct Request {
  std::list<Fetching>::iterator fetching;
  uint64_t at;  // offset on the disk
  std::span<std::byte> to;
};

struct Sent {
  Request request;
  uint64_t generation;  // of the session, when the request was sent
  nbd::NbdReply reply = {};
};

// Appends [from, to) to `out` unless it is empty.
void append(std::vector<Extent>& out, uint64_t from, uint64_t to, ExtentKind kind) {
  if (from >= to) return;
  Extent extent;
  extent.guest = GuestOffset(from);
  extent.length = to - from;
  extent.kind = kind;
  extent.host = HostOffset(from);
  if (out.empty() || out.back().end() != extent.guest || !qcow2::join(out.back(), extent))
    out.push_back(extent);
}

}  // namespace

Result<std::unique_ptr<NbdSource>> NbdSource::open(const nbd::NbdTarget& target,
                                                   const Options& options, const Stop& stop) {
  ASSIGN_OR_RETURN(const auto endpoint, nbd::NbdEndpoint::open(target, stop));
  const bool dirty = !options.bitmap.empty();
  const std::string context =
      dirty ? nbd::dirty_bitmap_context(options.bitmap) : LIBNBD_CONTEXT_BASE_ALLOCATION;
  ASSIGN_OR_RETURN(auto first, nbd::NbdSession::open(endpoint, {context}, options.tuning, stop));
  const nbd::NbdLimits limits = first->limits();
  std::unique_ptr<NbdSource> source(
      new NbdSource(target.name(), options, nbd::NbdStatus(context, limits.minimum)));
  if (dirty && !source->status_.offered(*first))
    return fail(Error::unsupported(
        fmt::format("{}: the export has no dirty bitmap '{}'", target.name(), options.bitmap)));
  source->size_ = limits.size;
  source->alignment_ = limits.minimum;
  source->max_request_ = limits.request(options.tuning.request_size);

  const bool several = limits.multi_conn;
  source->sessions_.push_back(std::move(first));
  if (several) {
    for (unsigned i = 1; i < options.tuning.connections; ++i) {
      ASSIGN_OR_RETURN(auto next, nbd::NbdSession::open(endpoint, {}, options.tuning, stop));
      source->sessions_.push_back(std::move(next));
    }
    if (source->status_.offered(*source->sessions_.front())) {
      ASSIGN_OR_RETURN(source->status_session_,
                       nbd::NbdSession::open(endpoint, {context}, options.tuning, stop));
    }
  }
  return source;
}

Result<void> NbdSource::map(GuestOffset at, uint64_t length, std::vector<Extent>& out) {
  // Lengths are multiples of the alignment, as is the size of the disk.
  if (!options_.bitmap.empty()) return map_dirty(at.value(), at.value() + length, out);
  const size_t first = out.size();
  stretches_.clear();
  RETURN_IF_ERROR(status_.ask(status_session(), at.value(), length, stretches_));
  for (const nbd::NbdStatus::Stretch& it : stretches_) {
    // A hole without the zero flag may read as anything.
    const bool zero = it.known && (it.flags & nbd::kStatusZero) != 0;
    append(out, it.at, it.at + it.length, zero ? ExtentKind::kZero : ExtentKind::kData);
  }
  unused_.split(out, first, first + kStatusExtentsAtOnce);
  return {};
}

// Reports clean ranges in whole units only: a later dirty range may extend back into the unit.
Result<void> NbdSource::map_dirty(uint64_t at, uint64_t end, std::vector<Extent>& out) {
  const uint64_t unit = options_.dirty_unit;
  uint64_t asked = at;    // everything before was requested
  uint64_t covered = at;  // everything before is reported
  while (covered == at) {
    stretches_.clear();
    RETURN_IF_ERROR(status_.ask(status_session(), asked, end - asked, stretches_));
    for (const nbd::NbdStatus::Stretch& it : stretches_) {
      asked = it.at + it.length;
      if (!it.known)
        return fail(Error::protocol(
            EIO,
            fmt::format("{}: the server does not report the dirty bitmap at {:#x}", name_, it.at)));
      if ((it.flags & nbd::kStatusDirty) == 0) continue;
      const uint64_t from = std::max(round_down(it.at, unit), covered);
      const uint64_t to = std::min(round_up(asked, unit), end);
      append(out, covered, from, ExtentKind::kUnallocated);
      append(out, from, to, ExtentKind::kData);
      covered = std::max(covered, to);
    }
    const uint64_t clean = asked == end ? end : round_down(asked, unit);
    append(out, covered, clean, ExtentKind::kUnallocated);
    covered = std::max(covered, clean);
  }
  return {};
}

Result<void> NbdSource::read_on(size_t index, GuestOffset at, std::span<std::byte> to) {
  nbd::NbdSession& session = *sessions_[index];
  for (size_t done = 0; done < to.size();) {
    const size_t length = std::min<uint64_t>(to.size() - done, max_request_);
    auto read = session.connection().read_now(to.subspan(done, length), at.value() + done);
    if (!read) {
      if (!session.is_loss(read.error())) return read;
      RETURN_IF_ERROR(session.restore(std::move(read).error()));
      continue;
    }
    session.answered();
    done += length;
  }
  return {};
}

Result<void> NbdSource::read_extent(size_t index, const Extent& extent, std::span<std::byte> to) {
  const uint64_t before = extent.guest.value() % alignment_;
  if (before == 0 && to.size() % alignment_ == 0) return read_on(index, extent.guest, to);
  AlignedBuffer whole(round_up(before + to.size(), alignment_));
  RETURN_IF_ERROR(read_on(index, extent.guest - before, whole.span()));
  std::memcpy(to.data(), whole.data() + before, to.size());
  return {};
}

Result<void> NbdSource::fetch(size_t index, ChunkFeed& feed, const qcow2::Geometry& geometry,
                              Fetched& fetched) {
  nbd::NbdSession& session = *sessions_[index];
  std::list<Fetching> chunks;
  std::deque<Request> waiting;  // to be sent
  std::list<Sent> in_flight;    // libnbd holds pointers to these until they are done

  // Divides the data of a chunk into requests.
  const auto cut = [&](Chunk* chunk) {
    const auto it = chunks.insert(chunks.end(), Fetching{chunk, 0});
    const GuestOffset begin = geometry.start_of(chunk->first);
    for (const Extent& extent : chunk->extents) {
      if (extent.reads_as_zero()) continue;
      // The server's extents may be unaligned.
      GuestOffset at(round_down(extent.guest.value(), alignment_));
      const GuestOffset end(std::min(size_, round_up(extent.end().value(), alignment_)));
      while (at < end) {
        const uint64_t length = std::min(end - at, max_request_);
        waiting.push_back({it, at.value(), chunk->bytes.span().subspan(at - begin, length)});
        ++it->left;
        at += length;
      }
    }
  };
  // Reconnects if the server closed the connection; unanswered requests are repeated.
  const auto restore = [&](Error why) -> Result<void> {
    if (!session.is_loss(why)) return fail(std::move(why));
    return session.restore(std::move(why));
  };

  Result<void> result;
  bool more = true;
  while (result && (more || !chunks.empty())) {
    while (result && more && waiting.size() + in_flight.size() < options_.tuning.requests) {
      const bool idle = chunks.empty();
      // next() requests block status on this session if there is no other, and may reconnect it.
      auto chunk = feed.next(idle ? ChunkFeed::Wait::kYes : ChunkFeed::Wait::kNo);
      if (!chunk) {
        result = fail(std::move(chunk).error());
        break;
      }
      if (!*chunk) {
        // No chunk: waiting for memory, at the end, or stopped.
        more = !feed.exhausted() && !idle;
        break;
      }
      prepare(**chunk, geometry);
      cut(*chunk);
    }
    while (result && !waiting.empty() && in_flight.size() < options_.tuning.requests) {
      const Request request = waiting.front();
      in_flight.emplace_back(request, session.generation());
      auto sent = session.connection().read(request.to, request.at, in_flight.back().reply);
      if (sent) {
        waiting.pop_front();
      } else {
        in_flight.pop_back();
        result = restore(std::move(sent).error());
      }
    }
    if (result && !in_flight.empty()) {
      result = session.connection().work();
      if (!result) result = restore(std::move(result).error());
    }

    for (auto it = in_flight.begin(); result && it != in_flight.end(); ++it) {
      // An error reply of the current connection.
      if (!it->reply.done() || it->reply.errnum() == 0 || it->generation != session.generation())
        continue;
      result = restore(it->reply.error(fmt::format("{}: read at {:#x}", name_, it->request.at)));
    }
    for (auto it = in_flight.begin(); it != in_flight.end();) {
      if (it->reply.done() && it->reply.errnum() == 0) {
        session.answered();
        --it->request.fetching->left;
      } else if (it->generation != session.generation()) {
        waiting.push_front(it->request);
      } else if (!it->reply.done()) {
        ++it;
        continue;
      }
      it = in_flight.erase(it);
    }
    for (auto it = chunks.begin(); it != chunks.end();) {
      const bool whole = it->left == 0 && result;
      if (whole) fetched.push(it->chunk);
      it = whole ? chunks.erase(it) : std::next(it);
      // The receiver of the chunk may have used the session and lost it.
      if (result && !session.connected()) result = fail(Error::cancelled());
    }
  }
  if (!in_flight.empty()) session.connection().drain();
  return result;
}

}  // namespace vc::copy
