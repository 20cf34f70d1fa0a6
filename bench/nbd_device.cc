#include "bench/nbd_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>

#include "base/aligned_buffer.h"
#include "bench/load_threads.h"

namespace vc::bench {

using nbd::NbdConnection;

namespace {

constexpr std::chrono::minutes kPatience(15);

// A slot for one request in flight; libnbd holds its address until the reply.
struct Slot {
  AlignedBuffer buffer;
  uint64_t at = 0;  // bytes
  bool flush = false;
  bool busy = false;
  Schedule::Clock::time_point sent;
  nbd::NbdReply reply = {};
};

}  // namespace

// The work of one thread on its connection.
class NbdDevice::Worker {
 public:
  Worker(NbdConnection& connection, Schedule& schedule, const Load& load, unsigned depth)
      : connection_(connection), schedule_(schedule), load_(load), slots_(depth) {
    for (Slot& slot : slots_) {
      slot.buffer = AlignedBuffer(load.block);
      if (load.write) std::memset(slot.buffer.data(), load.pattern, load.block);
    }
  }

  Result<void> run(Tally& tally) {
    auto result = run_to_end(tally);
    if (in_flight_ > 0) connection_.drain();
    return result;
  }

  // Returns true if the failure was an error reply of a working server.
  bool answered_error() const { return error_.has_value(); }

 private:
  Result<void> run_to_end(Tally& tally) {
    while (true) {
      RETURN_IF_ERROR(take_answers(tally));
      RETURN_IF_ERROR(send());
      if (in_flight_ > 0) {
        RETURN_IF_ERROR(connection_.work());
      } else if (error_) {
        return fail(std::move(*error_));
      } else if (ended_) {
        return {};
      } else {
        schedule_.wait();
      }
    }
  }

  Result<void> take_answers(Tally& tally) {
    for (Slot& slot : slots_) {
      if (!slot.busy || !slot.reply.done()) continue;
      slot.busy = false;
      --in_flight_;
      slot.flush ? schedule_.flushed() : schedule_.done();
      if (slot.reply.errnum() != 0) {
        // After an error, still waits for the other replies, so that the server can send them.
        const char* const what = slot.flush ? "flush" : load_.write ? "write" : "read";
        if (!error_)
          error_ =
              slot.reply.error(fmt::format("{}: {} at {:#x}", connection_.name(), what, slot.at));
        schedule_.end();
        ended_ = true;
        continue;
      }
      const auto took =
          std::chrono::duration_cast<std::chrono::nanoseconds>(slot.reply.when() - slot.sent);
      (slot.flush ? tally.flushes : tally.latency).add(static_cast<uint64_t>(took.count()));
    }
    return {};
  }

  Result<void> send() {
    for (Slot& slot : slots_) {
      if (slot.busy || ended_) continue;
      const Schedule::Turn turn = schedule_.take();
      if (turn.kind == Schedule::Turn::Kind::kWait) return {};
      if (turn.kind == Schedule::Turn::Kind::kEnd) {
        ended_ = true;
        return {};
      }
      slot.flush = turn.kind == Schedule::Turn::Kind::kFlush;
      slot.at = turn.at;
      slot.sent = Schedule::Clock::now();
      if (auto asked = ask(slot); !asked) {
        slot.flush ? schedule_.flushed() : schedule_.done();
        return asked;
      }
      slot.busy = true;
      ++in_flight_;
    }
    return {};
  }

  Result<void> ask(Slot& slot) {
    if (slot.flush) return connection_.flush(slot.reply);
    if (!load_.write) return connection_.read(slot.buffer.span(), slot.at, slot.reply);
    return connection_.write(slot.buffer.span(), slot.at, slot.reply, load_.flush_each);
  }

  NbdConnection& connection_;
  Schedule& schedule_;
  const Load& load_;
  std::vector<Slot> slots_;
  unsigned in_flight_ = 0;
  bool ended_ = false;
  std::optional<Error> error_;  // the first error reply
};

Result<std::unique_ptr<Device>> NbdDevice::open(const nbd::NbdTarget& target,
                                                const nbd::NbdTuning& tuning, bool write,
                                                Stop& stop) {
  std::unique_ptr<NbdDevice> device(new NbdDevice(target.name(), stop));
  device->write_ = write;
  ASSIGN_OR_RETURN(device->endpoint_, nbd::NbdEndpoint::open(target, stop));
  for (unsigned i = 0; i < tuning.connections; ++i) {
    auto connection = NbdConnection::open(*device->endpoint_, {}, tuning.timeout, stop);
    if (!connection) {
      bool final = false;
      return fail(device->endpoint_->explain(std::move(connection).error(), final));
    }
    device->connections_.push_back(std::move(*connection));
    if (i > 0) continue;
    device->limits_ = device->connections_.front()->limits();
    if (!device->limits_.multi_conn) break;
  }
  if (write && device->limits_.read_only)
    return fail(
        Error::protocol(EROFS, device->name_ + ": the server allows no writes to the disk"));
  return device;
}

Result<void> NbdDevice::check(const Load& load) const {
  const uint64_t unit = limits_.minimum;
  if (load.block % unit != 0 || load.stride() % unit != 0 || load.offset % unit != 0)
    return fail(Error::invalid(fmt::format(
        "{}: the server accepts only offsets and lengths that are multiples of {} bytes", name_,
        unit)));
  if (load.block > limits_.maximum)
    return fail(Error::invalid(fmt::format("{}: the server accepts at most {} bytes in a request",
                                           name_, limits_.maximum)));
  if (load.flush_each && !limits_.can_fua)
    return fail(Error::unsupported(name_ + ": the server does not support writes with FUA"));
  if (load.flush_interval != 0 && !limits_.can_flush)
    return fail(Error::unsupported(name_ + ": the server does not support flush"));
  return {};
}

void NbdDevice::run(Schedule& schedule, const Load& load, Tally& tally) {
  const auto count =
      static_cast<unsigned>(std::min<size_t>(connections_.size(), std::max(1u, load.depth)));
  std::deque<Worker> workers;
  for (unsigned i = 0; i < count; ++i) {
    const unsigned depth = load.depth / count + (i < load.depth % count ? 1 : 0);
    workers.emplace_back(*connections_[i], schedule, load, depth);
  }
  run_threads(count, schedule, stop_, tally, [&](size_t number, Tally& own) -> Result<void> {
    Worker& worker = workers[number];
    auto done = worker.run(own);
    if (done || worker.answered_error()) return done;
    bool final = false;
    return fail(endpoint_->explain(std::move(done).error(), final));
  });
}

Result<void> NbdDevice::flush() {
  if (!limits_.can_flush) return {};
  for (const auto& connection : connections_) {
    RETURN_IF_ERROR(connection->flush_now());
    if (limits_.multi_conn) break;
  }
  return {};
}

Result<void> NbdDevice::close() {
  connections_.clear();
  // Lets a server that we started close a written image cleanly.
  if (write_ && endpoint_->server() != nullptr) return endpoint_->server()->finish(kPatience);
  return {};
}

}  // namespace vc::bench
