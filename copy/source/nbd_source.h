// A disk behind an NBD server.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/stop.h"
#include "copy/source/chunk_feed.h"
#include "copy/source/source.h"
#include "copy/source/unused_space.h"
#include "nbd/block_status.h"
#include "nbd/session.h"
#include "nbd/target.h"
#include "nbd/tuning.h"

namespace copy {

// Connections that are lost are made again, and what was asked on them is asked again.
class NbdSource final : public Source {
 public:
  struct Options {
    NbdTuning tuning = {};
    // A dirty bitmap of QEMU's, by name; empty: none.  With it, map () calls data what the bitmap
    // calls dirty, whatever it holds, and unallocated all that has not changed: for a sink that
    // leaves alone what it is not given.
    std::string bitmap;
    // What counts as dirty is widened to multiples of this many bytes, a power of two: clusters of
    // a copy can only be brought up to date whole.
    uint64_t dirty_unit = 1;
  };

  // `stop` outlives the source.
  static qcow2::Result<std::unique_ptr<NbdSource>> open(const NbdTarget& target,
                                                        const Options& options, const Stop& stop);
  static qcow2::Result<std::unique_ptr<NbdSource>> open(const std::string& uri,
                                                        const Options& options, const Stop& stop) {
    return open(NbdTarget{uri, {}}, options, stop);
  }

  // From now on the map says that what is unused reads as zeros.  read () gives its bytes still.
  void leave_out(const std::shared_ptr<const guest::Ranges>& unused) {
    unused_ = UnusedSpace(unused, alignment_);
  }

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  std::optional<uint64_t> cluster_size() const override { return std::nullopt; }
  uint64_t alignment() const override { return alignment_; }
  qcow2::Result<void> map(qcow2::GuestOffset at, uint64_t length,
                          std::vector<qcow2::Extent>& out) override;
  qcow2::Result<void> read(qcow2::GuestOffset at, std::span<std::byte> to) override {
    return read_on(0, at, to);
  }
  // The same over connection `index`, by one thread at a time on each.  map () may use the first.
  qcow2::Result<void> read_on(size_t index, qcow2::GuestOffset at, std::span<std::byte> to);

  // How many connections there are: each wants a thread for fetch ().
  size_t connections() const { return lines_.size(); }
  // One of them, for the thread that fetches on it to send other things, too.
  NbdLine& line(size_t index) { return *lines_[index]; }

  // Takes what is done to the next stage; may block.
  class Fetched {
   public:
    virtual ~Fetched() = default;
    virtual void push(Chunk* chunk) = 0;
  };
  // Reads the data of chunks from the feed over connection `index` until there are no more, and
  // hands them on.  Chunks have been prepared () when they come.
  qcow2::Result<void> fetch(size_t index, ChunkFeed& feed, const qcow2::Geometry& geometry,
                            Fetched& fetched);

 private:
  NbdLine& status_line() { return status_line_ ? *status_line_ : *lines_.front(); }
  qcow2::Result<void> map_dirty(uint64_t at, uint64_t end, std::vector<qcow2::Extent>& out);

  NbdSource(std::string name, const Options& options, NbdStatus status)
      : name_(std::move(name)), options_(options), status_(std::move(status)) {}

  const std::string name_;
  const Options options_;
  uint64_t size_ = 0;
  uint64_t alignment_ = 1;
  uint64_t max_request_ = 0;  // bytes
  NbdStatus status_;
  UnusedSpace unused_;
  std::vector<NbdStatus::Stretch> stretches_;  // of the last map (), for its memory
  // Block status is asked for on the first connection if there is only that one, and it is then
  // used by the thread that fetches on it (which plans, too); else on one of its own.
  std::unique_ptr<NbdLine> status_line_;
  std::vector<std::unique_ptr<NbdLine>> lines_;
};

}  // namespace copy
