// A raw disk that comes in a pipe: its end is known when it comes.
#pragma once

#include <memory>
#include <string>

#include "base/stop.h"
#include "copy/source/chunk_feed.h"
#include "copy/source/source.h"

namespace copy {

class StreamSource final : public Source {
 public:
  // `fd` is borrowed; `name` is what to call it.  `stop` outlives the source.
  // A QCOW2 image cannot be read from its beginning to its end: that it comes is an error, unless
  // `any_content`.
  static qcow2::Result<std::unique_ptr<StreamSource>> open(int fd, std::string name,
                                                           bool any_content, const Stop& stop);

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  std::optional<uint64_t> cluster_size() const override { return std::nullopt; }
  // All is data, as far as one knows.
  qcow2::Result<void> map(qcow2::GuestOffset at, uint64_t length,
                          std::vector<qcow2::Extent>& out) override;
  // The beginning only, and only for a look at it.
  qcow2::Result<void> read(qcow2::GuestOffset at, std::span<std::byte> to) override;

  // Reads the data of the next chunk, which the feed has given out.  False: it is the last, cut
  // where the stream ends; that may leave nothing of it.  size () is the disk's from then on,
  // rounded up to whole sectors.
  qcow2::Result<bool> fill(Chunk& chunk, const qcow2::Geometry& geometry);

 private:
  StreamSource(int fd, std::string name, const Stop& stop)
      : fd_(fd), name_(std::move(name)), stop_(stop) {}
  qcow2::Result<size_t> read_some(std::span<std::byte> to);

  const int fd_;
  const std::string name_;
  const Stop& stop_;
  uint64_t size_ = kUnknownSize;
  std::vector<std::byte> start_;  // what was looked at, and is yet to be given out
};

}  // namespace copy
