#include "nbd/writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <list>

#include "base/rounding.h"

namespace vc::nbd {

namespace {

// The protocol has 32-bit lengths; some servers support only 31 bits.
constexpr uint64_t kLargestZero = uint64_t{1} << 30;
// Size for a second try if a server rejects kLargestZero: servers must accept data of this size.
constexpr uint64_t kSmallZero = 32 << 20;

// Cluster sizes to try for images behind servers that announce none: the most common one, and the
// largest of QCOW2.
constexpr std::array<uint64_t, 2> kClusters{64 << 10, 2 << 20};

// Returns true if the server does not support the request, rather than fails to do it.
bool is_refusal(int errnum) {
  // ENOTSUP has the same value on Linux.
  return errnum == EINVAL || errnum == EOPNOTSUPP || errnum == EOVERFLOW;
}

}  // namespace

// One call of send ().
class NbdWriter::Sender {
 public:
  Sender(NbdWriter& writer, NbdSession& session, std::span<const Piece> pieces)
      : writer_(writer), session_(session), to_do_(pieces.begin(), pieces.end()) {}

  Result<void> run() {
    auto result = send_all();
    if (!in_flight_.empty()) session_.connection().drain();
    return result;
  }

 private:
  struct Request {
    Piece piece;
    bool zero;            // sent as a zero request
    uint64_t generation;  // number of the connection when sent
    NbdReply reply = {};
  };

  Result<void> send_all() {
    while (!to_do_.empty() || !in_flight_.empty()) {
      while (!to_do_.empty() && in_flight_.size() < std::max(writer_.options_.tuning.requests, 1u))
        RETURN_IF_ERROR(issue());
      if (auto worked = session_.connection().work(); !worked)
        RETURN_IF_ERROR(lost(std::move(worked).error()));
      RETURN_IF_ERROR(collect());
    }
    return {};
  }

  // Takes the next request from the work that is left.
  Piece next(bool zero) {
    Piece& front = to_do_.front();
    Piece piece = front;
    piece.length = std::min(front.length, zero ? writer_.zero_limit_.load() : writer_.write_limit_);
    front.at += piece.length;
    front.length -= piece.length;
    if (front.bytes) front.bytes += piece.length;
    if (front.length == 0) to_do_.pop_front();
    return piece;
  }

  Result<void> issue() {
    const bool zero = !to_do_.front().bytes && writer_.can_zero_;
    const Piece piece = next(zero);
    in_flight_.emplace_back(piece, zero, session_.generation());
    NbdReply& reply = in_flight_.back().reply;
    NbdConnection& connection = session_.connection();
    const std::byte* const bytes = piece.bytes ? piece.bytes : writer_.zeros_.data();
    auto sent = zero ? connection.zero(piece.length, piece.at, reply,
                                       {.fast = writer_.options_.only_cheap_zeros && writer_.fast_})
                     : connection.write({bytes, piece.length}, piece.at, reply);
    if (sent) return {};
    to_do_.push_front(piece);
    in_flight_.pop_back();
    return lost(std::move(sent).error());
  }

  Result<void> lost(Error why) {
    if (!session_.is_loss(why)) return fail(std::move(why));
    return session_.restore(std::move(why));
  }

  Result<void> collect() {
    for (auto it = in_flight_.begin(); it != in_flight_.end();) {
      if (it->reply.done() && it->reply.errnum() == 0) {
        session_.answered();
      } else if (it->generation != session_.generation()) {
        to_do_.push_front(it->piece);
      } else if (it->reply.done()) {
        RETURN_IF_ERROR(refused(*it));
        // The restored connection sends this piece again, with the others.
        if (it->generation != session_.generation()) continue;
      } else {
        ++it;
        continue;
      }
      it = in_flight_.erase(it);
    }
    return {};
  }

  // Handles a rejection: tries smaller requests, or plain zeros.
  Result<void> refused(const Request& request) {
    const Piece& piece = request.piece;
    const Error error = request.reply.error(fmt::format(
        "{}: {} at {:#x}", session_.name(), piece.bytes ? "write" : "writing zeros", piece.at));
    if (session_.is_loss(error)) return session_.restore(error);
    if (!request.zero || !is_refusal(request.reply.errnum())) return fail(error);
    if (piece.length > writer_.small_zero_) {
      writer_.zero_limit_ = writer_.small_zero_;
    } else if (!writer_.options_.only_cheap_zeros) {
      writer_.can_zero_ = false;
    } else {
      narrow(piece);
      return {};
    }
    to_do_.push_front(piece);
    return {};
  }

  // Reduces the request to whole clusters: an image can zero a part of a cluster only by writing.
  void narrow(const Piece& piece) {
    for (const uint64_t unit : kClusters) {
      const uint64_t begin = round_up(piece.at, unit);
      const uint64_t end = round_down(piece.at + piece.length, unit);
      if (begin < end && end - begin == piece.length) continue;
      if (begin < end) to_do_.push_front({begin, end - begin, nullptr});
      writer_.declined_ += piece.length - (begin < end ? end - begin : 0);
      return;
    }
    writer_.declined_ += piece.length;
  }

  NbdWriter& writer_;
  NbdSession& session_;
  std::deque<Piece> to_do_;
  std::list<Request> in_flight_;  // libnbd holds pointers to them until they are done
};

NbdWriter::NbdWriter(const NbdLimits& limits, const Options& options)
    : options_(options),
      write_limit_(limits.request(options.tuning.request_size)),
      small_zero_(limits.request(kSmallZero)),
      fast_(limits.can_fast_zero),
      zero_limit_(kLargestZero),
      can_zero_(limits.can_zero),
      zeros_(write_limit_) {
  std::memset(zeros_.data(), 0, zeros_.size());
}

Result<void> NbdWriter::send(NbdSession& session, std::span<const Piece> pieces) {
  return Sender(*this, session, pieces).run();
}

Result<bool> NbdWriter::zero_fast(NbdSession& session, uint64_t end) {
  if (!can_zero_ || !fast_) return false;
  for (uint64_t at = 0; at < end;) {
    const uint64_t length = std::min<uint64_t>(end - at, zero_limit_);
    NbdReply reply;
    auto done = session.connection().zero(length, at, reply, {.fast = true});
    if (done) done = session.connection().wait(reply, "zero");
    if (!done) {
      if (session.is_loss(done.error()) || !is_refusal(done.error().errnum()))
        return fail(std::move(done).error());
      if (at > 0 || length <= small_zero_) return false;
      zero_limit_ = small_zero_;
      continue;
    }
    at += length;
  }
  return true;
}

}  // namespace vc::nbd
