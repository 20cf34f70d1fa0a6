// A raw disk read from a pipe. Its size is known only at the end.
#pragma once

#include <memory>
#include <string>

#include "base/stop.h"
#include "copy/source/source.h"

namespace vc::copy {

class StreamSource final : public Source {
 public:
  // Opens a stream. `fd` is borrowed; `name` is for messages. `stop` must outlive the source.
  // Returns an error if the stream is a QCOW2 image, which cannot be read sequentially, unless
  // `any_content`.
  static Result<std::unique_ptr<StreamSource>> open(int fd, std::string name, bool any_content,
                                                    const Stop& stop);

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  bool is_stream() const override { return true; }
  std::optional<uint64_t> cluster_size() const override { return std::nullopt; }
  // Reports everything as data.
  Result<void> map(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out) override;
  // Reads the beginning only, to inspect it.
  Result<void> read(GuestOffset at, std::span<std::byte> to) override;

  // One thread reads the stream.
  size_t fetchers() const override { return 1; }
  // At the end of the stream, size() becomes the size of the disk, rounded up to whole sectors.
  Result<void> fetch(size_t index, ChunkFeed& feed, const qcow2::Geometry& geometry,
                     Fetched& fetched) override;

 private:
  // Reads the data of the next chunk from the feed. Returns false if it is the last chunk; the
  // chunk is then truncated at the end of the stream, possibly to nothing.
  Result<bool> fill(Chunk& chunk, const qcow2::Geometry& geometry);
  StreamSource(int fd, std::string name, const Stop& stop)
      : fd_(fd), name_(std::move(name)), stop_(stop) {}
  Result<size_t> read_some(std::span<std::byte> to);

  const int fd_;
  const std::string name_;
  const Stop& stop_;
  uint64_t size_ = kUnknownSize;
  std::vector<std::byte> start_;  // bytes that were inspected, not yet returned by fill()
};

}  // namespace vc::copy
