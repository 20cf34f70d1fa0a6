// A disk on an NBD server as the destination.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/stop.h"
#include "copy/pipeline/sink.h"
#include "copy/sink/unflushed.h"
#include "nbd/block_status.h"
#include "nbd/session.h"
#include "nbd/target.h"
#include "nbd/writer.h"

namespace vc::copy {

// If the server's disk is larger than the copied disk, the rest of the server's disk stays
// unchanged.
//
// The sink reopens lost connections. A server that restarted may have lost all writes since its
// last flush. The sink reads these ranges again, compares them with digests, and repeats zero
// requests. If data is missing, the copy fails with an error that asks for a restart of the copy.
// If the server cannot flush, a lost connection is an error.
class NbdSink final : public Sink {
 public:
  struct Options {
    nbd::NbdTuning tuning = {};
    bool destination_is_zero = false;  // whole disk reads as zeros: zeros need not be written
    // Updates an existing copy (see NbdSource::Options::bitmap): gaps between chunks and holes in
    // chunks stay unchanged; zeros that were read are written.
    bool update = false;
    // Block size of zero detection: bytes, a power of two, 512 to 2 MiB, at least the server's
    // minimum block size.
    uint64_t granularity = 64 << 10;
  };

  // Opens the server's disk for a copy of `size` bytes. Returns an error if the server does not
  // accept writes or its disk is too small. `stop` must outlive the sink.
  static Result<std::unique_ptr<NbdSink>> open(const nbd::NbdTarget& target, const Options& options,
                                               uint64_t size, const Stop& stop);

  const qcow2::Geometry& geometry() const override { return geometry_; }
  Result<void> place(Chunk& chunk) override;
  Result<void> write(const Chunk& chunk) override;
  // Writes zeros up to the end of the copied disk, and flushes.
  Result<void> finish() override;

  const std::string& name() const { return name_; }
  // Size of the server's disk, bytes.
  uint64_t destination_size() const { return limits_.size; }
  size_t connections() const { return lanes_.size(); }

 private:
  // A connection with its cached block status.
  struct Lane {
    std::unique_ptr<nbd::NbdSession> session;
    nbd::NbdStatus status;
  };
  class Lease;
  using Piece = nbd::NbdWriter::Piece;

  NbdSink(std::string name, const Options& options, const nbd::NbdLimits& limits, uint64_t size,
          const Stop& stop);

  Result<void> zero_all(nbd::NbdSession& session);
  void add_zeros(std::vector<Piece>& pieces, uint64_t begin, uint64_t end) const;
  Result<Lane*> lease();
  void give_back(Lane* lane, bool good);
  Result<void> send(const std::vector<Piece>& pieces);
  Result<std::vector<Piece>> without_known_zeros(Lane& lane, const std::vector<Piece>& pieces);
  Result<void> send_on(Lane& lane, const std::vector<Piece>& pieces);
  Result<void> check_unflushed(Lane& lane);
  Result<void> flush(Lane& lane);

  const std::string name_;
  const Options options_;
  const nbd::NbdLimits limits_;
  const uint64_t size_;  // of the copied disk, bytes
  const Stop& stop_;
  const qcow2::Geometry geometry_;
  nbd::NbdWriter writer_;
  bool zeroed_ = false;  // unwritten ranges read as zeros
  std::vector<std::unique_ptr<Lane>> lanes_;
  GuestOffset end_;  // end of the last placed chunk
  Unflushed unflushed_;
  std::atomic<bool> wrote_ = false;  // whether data was written to a server that cannot flush

  Mutex mutex_;
  ConditionVariable given_back_;
  std::vector<Lane*> free_ GUARDED_BY(mutex_);
  bool failed_ GUARDED_BY(mutex_) = false;
};

}  // namespace vc::copy
