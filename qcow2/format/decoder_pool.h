// Decoders with buffers, shared by the threads that read images.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "qcow2/format/codec.h"

namespace vc::qcow2 {

// The state that one thread needs to read a compressed cluster.
struct DecodeContext {
  Decoder decoder;
  std::vector<std::byte> stream;   // as read from the file
  std::vector<std::byte> cluster;  // decoded, if the caller wants only a part
};

// Thread-safe.  Keeps as many contexts as were ever in use at once.
class DecoderPool {
 public:
  // A context that returns itself to the pool.
  class Lease {
   public:
    Lease(DecoderPool& pool, std::unique_ptr<DecodeContext> context)
        : pool_(pool), context_(std::move(context)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() {
      const MutexLock lock(pool_.mutex_);
      pool_.idle_.push_back(std::move(context_));
    }
    DecodeContext* operator->() { return context_.get(); }

   private:
    DecoderPool& pool_;
    std::unique_ptr<DecodeContext> context_;
  };

  Lease take() {
    {
      const MutexLock lock(mutex_);
      if (!idle_.empty()) {
        auto context = std::move(idle_.back());
        idle_.pop_back();
        return Lease(*this, std::move(context));
      }
    }
    auto context = std::make_unique<DecodeContext>();
    const MutexLock lock(mutex_);
    // Ensures that the return to the pool cannot fail.
    idle_.reserve(++made_);
    return Lease(*this, std::move(context));
  }

 private:
  Mutex mutex_;
  std::vector<std::unique_ptr<DecodeContext>> idle_ GUARDED_BY(mutex_);  // capacity >= made_
  size_t made_ GUARDED_BY(mutex_) = 0;
};

}  // namespace vc::qcow2
