// A disk behind an NBD server.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "copy/chunk_feed.h"
#include "copy/nbd_connection.h"
#include "copy/source.h"
#include "copy/stop.h"

namespace copy {

class NbdSource final : public Source {
 public:
  struct Options {
    unsigned connections = 4;           // if the server allows several
    unsigned requests = 16;             // in flight on each
    uint64_t request_size = 256 << 10;  // bytes, a power of two
  };

  // `stop` outlives the source.
  static qcow2::Result<std::unique_ptr<NbdSource>> open(const std::string& uri,
                                                        const Options& options, const Stop& stop);

  const std::string& name() const override { return uri_; }
  uint64_t size() const override { return size_; }
  std::optional<uint64_t> cluster_size() const override { return std::nullopt; }
  uint64_t alignment() const override { return alignment_; }
  qcow2::Result<void> map(qcow2::GuestOffset at, uint64_t length,
                          std::vector<qcow2::Extent>& out) override;
  qcow2::Result<void> read(qcow2::GuestOffset at, std::span<std::byte> to) override;

  // How many connections there are: each wants a thread for fetch ().
  size_t connections() const { return connections_.size(); }

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
  NbdSource(std::string uri, const Options& options) : uri_(std::move(uri)), options_(options) {}

  std::string uri_;
  Options options_;
  uint64_t size_ = 0;
  uint64_t alignment_ = 1;
  uint64_t max_request_ = 0;  // bytes
  bool can_status_ = false;
  // Block status is asked for on the first connection if there is only that one, and it is then
  // used by the thread that fetches on it (which plans, too); else on one of its own.
  std::unique_ptr<NbdConnection> status_;
  std::vector<std::unique_ptr<NbdConnection>> connections_;
};

}  // namespace copy
