#include "copy/nbd_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <deque>
#include <list>

#include "copy/cluster_worker.h"

namespace copy {

using qcow2::Error;
using qcow2::Extent;
using qcow2::ExtentKind;
using qcow2::GuestOffset;
using qcow2::Result;

namespace {

// What servers must take when they say nothing else (NBD protocol, "Block sizes").
constexpr uint64_t kDefaultMaxRequest = 32 << 20;
// How much of the disk is asked about at once: the protocol counts in 32 bits.
constexpr uint64_t kMaxStatus = uint64_t{2} << 30;

// base:allocation's two flags.  A hole without the second may hold anything.
constexpr uint32_t kStatusZero = 2;

// Appends what a server says of [at, end), which it may say in parts that are too short or too
// long.
struct StatusReader {
  std::vector<Extent>& out;
  GuestOffset at;
  GuestOffset end;

  int add(const char* context, uint64_t offset, const uint32_t* entries, size_t count) {
    if (std::strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || offset != at.value()) return 0;
    for (size_t i = 0; i + 1 < count && at < end; i += 2) {
      const uint64_t length = std::min<uint64_t>(entries[i], end - at);
      if (length == 0) break;
      Extent extent;
      extent.guest = at;
      extent.length = length;
      extent.kind = (entries[i + 1] & kStatusZero) != 0 ? ExtentKind::kZero : ExtentKind::kData;
      extent.host = qcow2::HostOffset(at.value());
      at += length;
      if (out.empty() || out.back().end() != extent.guest || !qcow2::join(out.back(), extent))
        out.push_back(extent);
    }
    return 0;
  }

  static int call(void* self, const char* context, uint64_t offset, uint32_t* entries, size_t count,
                  int* /*error*/) {
    return static_cast<StatusReader*>(self)->add(context, offset, entries, count);
  }
};

// A chunk that is being read.
struct Fetching {
  Chunk* chunk;
  unsigned left = 0;  // requests that are not answered
};

struct Request {
  std::list<Fetching>::iterator fetching;
  uint64_t at;  // of the disk
  std::span<std::byte> to;
  int errnum = 0;
  bool done = false;

  static int complete(void* self, int* error) {
    auto* const request = static_cast<Request*>(self);
    request->errnum = *error;
    request->done = true;
    return 1;  // we need no nbd_aio_command_completed
  }
};

}  // namespace

Result<std::unique_ptr<NbdSource>> NbdSource::open(const std::string& uri, const Options& options,
                                                   const Stop& stop) {
  std::unique_ptr<NbdSource> source(new NbdSource(uri, options));
  ASSIGN_OR_RETURN(auto first, NbdConnection::open(uri, true, stop));
  nbd_handle* const nbd = first->handle();
  const int64_t size = nbd_get_size(nbd);
  if (size < 0) return qcow2::fail(first->last_error());
  source->size_ = static_cast<uint64_t>(size);

  const int64_t minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
  const int64_t maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);
  if (minimum > 1) source->alignment_ = std::bit_ceil(static_cast<uint64_t>(minimum));
  source->max_request_ = maximum > 0 ? static_cast<uint64_t>(maximum) : kDefaultMaxRequest;
  // A piece is a multiple of the alignment, and no larger than allowed.
  source->max_request_ = std::min(std::bit_floor(source->max_request_), options.request_size);
  source->max_request_ = std::max(source->max_request_, source->alignment_);

  source->can_status_ = nbd_can_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
  // Servers that do not say so may take one client only, and let the second wait for ever.
  const bool several = nbd_can_multi_conn(nbd) == 1;
  source->connections_.push_back(std::move(first));
  if (several) {
    for (unsigned i = 1; i < options.connections; ++i) {
      ASSIGN_OR_RETURN(auto next, NbdConnection::open(uri, false, stop));
      source->connections_.push_back(std::move(next));
    }
    if (source->can_status_) {
      ASSIGN_OR_RETURN(source->status_, NbdConnection::open(uri, true, stop));
    }
  }
  return source;
}

Result<void> NbdSource::map(GuestOffset at, uint64_t length, std::vector<Extent>& out) {
  // Lengths are multiples of the alignment, as the disk's size is.
  length = std::min(length, kMaxStatus);
  const GuestOffset end = at + length;
  StatusReader reader{out, at, end};
  if (can_status_) {
    NbdConnection& connection = status_ ? *status_ : *connections_.front();
    nbd_handle* const nbd = connection.handle();
    const nbd_extent_callback on_extent{StatusReader::call, &reader, nullptr};
    auto done = connection.wait(
        nbd_aio_block_status(nbd, length, at.value(), on_extent, NBD_NULL_COMPLETION, 0));
    // A server that is there but will not say: we read what it may have.
    if (!done && (nbd_aio_is_dead(nbd) == 1 || nbd_aio_is_closed(nbd) == 1 ||
                  done.error().kind() == Error::Kind::kCancelled))
      return done;
  }
  if (reader.at == at) {
    Extent extent;
    extent.guest = at;
    extent.length = length;
    extent.kind = ExtentKind::kData;
    extent.host = qcow2::HostOffset(at.value());
    out.push_back(extent);
  }
  return {};
}

Result<void> NbdSource::read(GuestOffset at, std::span<std::byte> to) {
  NbdConnection& connection = *connections_.front();
  for (size_t done = 0; done < to.size();) {
    const size_t length = std::min<uint64_t>(to.size() - done, max_request_);
    RETURN_IF_ERROR(connection.wait(nbd_aio_pread(connection.handle(), to.data() + done, length,
                                                  at.value() + done, NBD_NULL_COMPLETION, 0)));
    done += length;
  }
  return {};
}

Result<void> NbdSource::fetch(size_t index, ChunkFeed& feed, const qcow2::Geometry& geometry,
                              Fetched& fetched) {
  NbdConnection& connection = *connections_[index];
  nbd_handle* const nbd = connection.handle();
  std::list<Fetching> chunks;
  std::deque<Request> waiting;   // to be sent
  std::list<Request> in_flight;  // libnbd holds pointers to these until they are done

  // The parts of a chunk that are data, in pieces.
  const auto cut = [&](Chunk* chunk) {
    const auto it = chunks.insert(chunks.end(), Fetching{chunk, 0});
    const GuestOffset begin = geometry.start_of(chunk->first);
    for (const Extent& extent : chunk->extents) {
      if (extent.reads_as_zero()) continue;
      // A server's status need not keep to its own alignment.
      GuestOffset at(extent.guest.value() / alignment_ * alignment_);
      const GuestOffset end(
          std::min(size_, (extent.end().value() + alignment_ - 1) / alignment_ * alignment_));
      while (at < end) {
        const uint64_t length = std::min(end - at, max_request_);
        waiting.push_back({it, at.value(), chunk->bytes.span().subspan(at - begin, length)});
        ++it->left;
        at += length;
      }
    }
  };

  Result<void> result;
  bool more = true;
  while (result && (more || !chunks.empty())) {
    while (result && more && waiting.size() + in_flight.size() < options_.requests) {
      const bool idle = chunks.empty();
      auto chunk = feed.next(idle ? ChunkFeed::Wait::kYes : ChunkFeed::Wait::kNo);
      if (!chunk) {
        result = qcow2::fail(std::move(chunk).error());
        break;
      }
      if (!*chunk) {
        // Waiting for memory, the end, or a stop.
        more = !feed.exhausted() && !idle;
        break;
      }
      prepare(**chunk, geometry);
      cut(*chunk);
    }
    while (result && !waiting.empty() && in_flight.size() < options_.requests) {
      in_flight.push_back(waiting.front());
      waiting.pop_front();
      Request& request = in_flight.back();
      const nbd_completion_callback on_completion{Request::complete, &request, nullptr};
      if (nbd_aio_pread(nbd, request.to.data(), request.to.size(), request.at, on_completion, 0) <
          0) {
        in_flight.pop_back();
        result = qcow2::fail(connection.last_error());
      }
    }
    if (result && !in_flight.empty()) result = connection.work();

    for (auto it = in_flight.begin(); it != in_flight.end();) {
      if (!it->done) {
        ++it;
        continue;
      }
      if (it->errnum != 0 && result)
        result =
            qcow2::fail(Error::system(it->errnum, fmt::format("{}: read at {:#x}", uri_, it->at)));
      --it->fetching->left;
      it = in_flight.erase(it);
    }
    for (auto it = chunks.begin(); it != chunks.end();) {
      const bool whole = it->left == 0 && result;
      if (whole) fetched.push(it->chunk);
      it = whole ? chunks.erase(it) : std::next(it);
    }
  }
  // libnbd calls the callbacks of what is still under way when it is closed: while they are alive.
  if (!in_flight.empty()) connections_[index].reset();
  return result;
}

}  // namespace copy
