// A disk behind an NBD server as the destination.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/stop.h"
#include "copy/pipeline/sink.h"
#include "copy/sink/unflushed.h"
#include "nbd/block_status.h"
#include "nbd/session.h"
#include "nbd/target.h"
#include "nbd/writer.h"

namespace copy {

// What the copied disk does not reach of a larger one at the server stays as it is.
//
// When a connection is lost it is made again.  A server that died in between may have lost all that
// it said yes to since its last flush: that is read again and compared with digests, zeros are
// asked for once more, and only then does the copy go on; if anything is missing the copy must be
// started again, and the error says so.  A server that cannot flush promises nothing, and there a
// lost connection is an error.
class NbdSink final : public Sink {
 public:
  struct Options {
    NbdTuning tuning = {};
    bool destination_is_zero = false;  // all of it reads as zeros: they need not be written
    // Brings an existing copy up to date (NbdSource::Options::bitmap): gaps between chunks, and
    // holes in them, stay as they are; zeros that were read are written.
    bool update = false;
    // Zeros are looked for, and left out, in pieces of this many bytes (a power of two, 512 to
    // 2 MiB), or of the server's minimum block if that is more.
    uint64_t granularity = 64 << 10;
  };

  // For a disk of `size` bytes.  An error when the server does not take writes, or has too small a
  // disk.  `stop` outlives the sink.
  static qcow2::Result<std::unique_ptr<NbdSink>> open(const NbdTarget& target,
                                                      const Options& options, uint64_t size,
                                                      const Stop& stop);

  const qcow2::Geometry& geometry() const override { return geometry_; }
  qcow2::Result<void> place(Chunk& chunk) override;
  qcow2::Result<void> write(const Chunk& chunk) override;
  // Zeros to the disk's end, and a flush.
  qcow2::Result<void> finish() override;

  const std::string& name() const { return name_; }
  // Of the server's disk, bytes.
  uint64_t destination_size() const { return limits_.size; }
  size_t connections() const { return lanes_.size(); }

 private:
  // A connection, and what is known of the server's extents on it.
  struct Lane {
    std::unique_ptr<NbdLine> line;
    NbdStatus status;
  };
  class Lease;
  using Piece = NbdWriter::Piece;

  NbdSink(std::string name, const Options& options, const NbdLimits& limits, uint64_t size,
          const Stop& stop);

  qcow2::Result<void> zero_all(NbdLine& line);
  void add_zeros(std::vector<Piece>& pieces, uint64_t begin, uint64_t end) const;
  qcow2::Result<Lane*> lease();
  void give_back(Lane* lane, bool good);
  qcow2::Result<void> send(const std::vector<Piece>& pieces);
  qcow2::Result<std::vector<Piece>> without_known_zeros(Lane& lane,
                                                        const std::vector<Piece>& pieces);
  qcow2::Result<void> send_on(Lane& lane, const std::vector<Piece>& pieces);
  qcow2::Result<void> look_again(Lane& lane);
  qcow2::Result<void> flush(Lane& lane);

  const std::string name_;
  const Options options_;
  const NbdLimits limits_;
  const uint64_t size_;  // of the copied disk, bytes
  const Stop& stop_;
  const qcow2::Geometry geometry_;
  NbdWriter writer_;
  bool zeroed_ = false;  // all that is not written reads as zeros
  std::vector<std::unique_ptr<Lane>> lanes_;
  qcow2::GuestOffset end_;  // of the last chunk that was placed
  Unflushed unflushed_;
  std::atomic<bool> wrote_ = false;  // something, to a server that cannot flush

  std::mutex mutex_;
  std::condition_variable given_back_;
  std::vector<Lane*> free_;  // guarded by mutex_
  bool failed_ = false;      // guarded by mutex_
};

}  // namespace copy
