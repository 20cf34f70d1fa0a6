#include "nbd/shared_connection.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <utility>

#include "base/caught.h"
#include "base/retry.h"

namespace vc::nbd {

namespace {

constexpr const char* kAllocation = "base:allocation";

}  // namespace

Result<std::unique_ptr<NbdSharedConnection>> NbdSharedConnection::open(
    const NbdEndpoint& endpoint, NbdConnection::Timeout timeout, OnLoss on_loss) {
  std::unique_ptr<NbdSharedConnection> shared(new NbdSharedConnection(std::move(on_loss)));
  shared->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!shared->wake_) return fail(Error::system(errno, "eventfd"));
  ASSIGN_OR_RETURN(shared->connection_,
                   NbdConnection::open(endpoint, {kAllocation}, timeout, shared->stop_));
  shared->limits_ = shared->connection_->limits();
  shared->tells_allocation_ = shared->connection_->has_context(kAllocation);
  shared->connection_->wake_by(shared->wake_.get());
  shared->thread_ = std::thread([self = shared.get()] { self->run(); });
  return shared;
}

NbdSharedConnection::~NbdSharedConnection() {
  if (!thread_.joinable()) return;
  {
    const MutexLock lock(mutex_);
    closing_ = true;
  }
  wake();
  thread_.join();
}

void NbdSharedConnection::wake() const {
  const uint64_t one = 1;
  (void)retry(::write, wake_.get(), &one, sizeof one);
}

Result<void> NbdSharedConnection::call(Request& request) {
  MutexLock lock(mutex_);
  if (lost_) return fail(*lost_);
  queue_.push_back(&request);
  wake();
  while (!request.result) request.done.wait(lock);
  return std::move(*request.result);
}

Result<void> NbdSharedConnection::read(std::span<std::byte> to, uint64_t at) {
  const Send send = [&](NbdConnection& it, NbdReply& reply) { return it.read(to, at, reply); };
  Request request{"read", send, true};
  return call(request);
}

Result<void> NbdSharedConnection::write(std::span<const std::byte> from, uint64_t at, bool fua) {
  const Send send = [&](NbdConnection& it, NbdReply& reply) {
    return it.write(from, at, reply, fua);
  };
  Request request{"write", send, true};
  return call(request);
}

Result<void> NbdSharedConnection::zero(uint64_t length, uint64_t at, ZeroFlags flags) {
  const Send send = [&](NbdConnection& it, NbdReply& reply) {
    return it.zero(length, at, reply, flags);
  };
  Request request{"zero", send, true};
  return call(request);
}

Result<void> NbdSharedConnection::trim(uint64_t length, uint64_t at, bool fua) {
  const Send send = [&](NbdConnection& it, NbdReply& reply) {
    return it.trim(length, at, reply, fua);
  };
  Request request{"trim", send, true};
  return call(request);
}

Result<void> NbdSharedConnection::flush() {
  const Send send = [](NbdConnection& it, NbdReply& reply) { return it.flush(reply); };
  Request request{"flush", send, true};
  return call(request);
}

Result<std::vector<StatusStretch>> NbdSharedConnection::allocation(uint64_t length, uint64_t at,
                                                                   bool one) {
  const std::string context = kAllocation;
  std::vector<StatusStretch> stretches;
  StatusReply answer(context, at, at + length, stretches);
  const Send send = [&](NbdConnection& it, NbdReply& reply) {
    return it.block_status(length, at, answer.callback(), reply, one);
  };
  Request request{"block status", send, false};
  const auto done = call(request);
  if (!done && !request.reply.lied()) return fail(done.error());
  if (!done) stretches.clear();
  if (stretches.empty()) stretches.push_back({at, length, false, 0});
  return stretches;
}

void NbdSharedConnection::run() {
  // Signals are for the other threads.
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
  if (const auto served = caught(connection_->name(), [this] { return serve(); }); !served)
    lose(served.error());
}

Result<void> NbdSharedConnection::serve() {
  while (send_queued()) {
    RETURN_IF_ERROR(connection_->work());
    RETURN_IF_ERROR(finish_answered());
  }
  connection_->close();
  return {};
}

// Returns false if the connection is to be closed.
bool NbdSharedConnection::send_queued() {
  uint64_t woken = 0;
  (void)retry(::read, wake_.get(), &woken, sizeof woken);
  std::vector<Request*> queue;
  {
    const MutexLock lock(mutex_);
    if (closing_) return false;
    queue.swap(queue_);
  }
  outstanding_.reserve(outstanding_.size() + queue.size());
  for (Request* const it : queue) outstanding_.push_back(it);
  for (Request* const it : queue)
    if (auto sent = it->send(*connection_, it->reply); !sent) {
      std::erase(outstanding_, it);
      finish(*it, std::move(sent));
    }
  return true;
}

Result<void> NbdSharedConnection::finish_answered() {
  Result<void> checked;
  for (size_t i = 0; i < outstanding_.size();) {
    Request& request = *outstanding_[i];
    if (!request.reply.done()) {
      ++i;
      continue;
    }
    Result<void> result;
    if (request.reply.errnum() != 0)
      result = fail(request.reply.error(fmt::format("{}: {}", connection_->name(), request.name)));
    if (request.checked && request.reply.lied()) checked = result;
    outstanding_.erase(outstanding_.begin() + static_cast<std::ptrdiff_t>(i));
    finish(request, std::move(result));
  }
  return checked;
}

// Notifies all threads first: draining takes some seconds.
void NbdSharedConnection::lose(const Error& error) {
  {
    const MutexLock lock(mutex_);
    lost_ = error;
    for (Request* const it : std::exchange(queue_, {})) outstanding_.push_back(it);
  }
  on_loss_(error);
  connection_->wake_by(-1);
  connection_->drain();
  connection_->close();
  for (Request* const it : std::exchange(outstanding_, {})) finish(*it, fail(error));
}

// The request is gone when its thread gets the lock.
void NbdSharedConnection::finish(Request& request, Result<void> result) {
  const MutexLock lock(mutex_);
  request.result = std::move(result);
  request.done.notify_one();
}

}  // namespace vc::nbd
