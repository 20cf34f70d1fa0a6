// A disk on an NBD server as the source.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/stop.h"
#include "copy/source/source.h"
#include "copy/source/unused_space.h"
#include "nbd/block_status.h"
#include "nbd/session.h"
#include "nbd/target.h"
#include "nbd/tuning.h"

namespace vc::copy {

// Reopens lost connections and repeats their requests.
class NbdSource final : public Source {
 public:
  struct Options {
    nbd::NbdTuning tuning = {};
    // Name of a QEMU dirty bitmap; empty: none. With a bitmap, map() reports dirty ranges as data,
    // whatever they hold, and clean ranges as unallocated. The sink must leave unallocated ranges
    // unchanged.
    std::string bitmap;
    // Dirty ranges are widened to multiples of this, because a copy can only update whole clusters.
    // Bytes, a power of two.
    uint64_t dirty_unit = 1;
  };

  // `stop` must outlive the source.
  static Result<std::unique_ptr<NbdSource>> open(const nbd::NbdTarget& target,
                                                 const Options& options, const Stop& stop);
  static Result<std::unique_ptr<NbdSource>> open(const std::string& uri, const Options& options,
                                                 const Stop& stop) {
    return open(nbd::NbdTarget{uri, {}}, options, stop);
  }

  void leave_out(const std::shared_ptr<const guest::Ranges>& unused) override {
    unused_ = UnusedSpace(unused, alignment_);
  }

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  std::optional<uint64_t> cluster_size() const override { return std::nullopt; }
  uint64_t alignment() const override { return alignment_; }
  Result<void> map(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out) override;
  Result<void> read(GuestOffset at, std::span<std::byte> to) override { return read_on(0, at, to); }
  // Reads over connection `index`. Each connection must be used by one thread at a time. map() may
  // use connection 0.
  Result<void> read_on(size_t index, GuestOffset at, std::span<std::byte> to);

  size_t connections() const { return sessions_.size(); }
  size_t fetchers() const override { return connections(); }
  uint64_t request_size() const override { return options_.tuning.request_size; }
  uint64_t chunks_in_flight(uint64_t chunk_size) const override {
    return connections() * (options_.tuning.requests * request_size() / chunk_size + 1);
  }
  // Returns a connection, for other requests by the thread that fetches on it.
  nbd::NbdSession& session(size_t index) { return *sessions_[index]; }

  // Fetches over connection `index`.
  Result<void> fetch(size_t index, ChunkFeed& feed, const qcow2::Geometry& geometry,
                     Fetched& fetched) override;
  // Reads over connection `index`. `extent` need not be aligned.
  Result<void> read_extent(size_t index, const qcow2::Extent& extent,
                           std::span<std::byte> to) override;

 private:
  nbd::NbdSession& status_session() {
    return status_session_ ? *status_session_ : *sessions_.front();
  }
  Result<void> map_dirty(uint64_t at, uint64_t end, std::vector<qcow2::Extent>& out);

  NbdSource(std::string name, const Options& options, nbd::NbdStatus status)
      : name_(std::move(name)), options_(options), status_(std::move(status)) {}

  const std::string name_;
  const Options options_;
  uint64_t size_ = 0;
  uint64_t alignment_ = 1;
  uint64_t max_request_ = 0;  // bytes
  nbd::NbdStatus status_;
  UnusedSpace unused_;
  std::vector<nbd::NbdStatus::Stretch> stretches_;  // of the last map() call, kept to reuse memory
  // Connection for block status. nullptr if there is only one connection, whose fetching thread
  // then also requests block status.
  std::unique_ptr<nbd::NbdSession> status_session_;
  std::vector<std::unique_ptr<nbd::NbdSession>> sessions_;
};

}  // namespace vc::copy
