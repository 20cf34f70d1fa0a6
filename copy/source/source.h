// A source of guest data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "copy/source/chunk.h"
#include "guest/reading/ranges.h"
#include "qcow2/format/geometry.h"
#include "qcow2/read/extent.h"
#include "qcow2/read/layer.h"
#include "qcow2/read/losses.h"
#include "storage/file_storage.h"
#include "storage/offset.h"

namespace vc::copy {

class ChunkFeed;
class ClusterReader;

class Source {
 public:
  // Larger than any disk.
  static constexpr uint64_t kUnknownSize = uint64_t{1} << 62;

  virtual ~Source() = default;

  virtual const std::string& name() const = 0;
  // Size of the virtual disk, bytes. kUnknownSize for a stream until its end.
  virtual uint64_t size() const = 0;
  // Returns true if the source can be read only once, from the beginning to the end.
  virtual bool is_stream() const { return false; }
  // Cluster size of the source, bytes. nullopt if it has no clusters.
  virtual std::optional<uint64_t> cluster_size() const = 0;
  // Reads should begin and end at multiples of this: bytes, a power of two.
  virtual uint64_t alignment() const { return 1; }

  // Appends extents that cover [at, at + length), or the first part of it, without gap or overlap.
  // Not thread-safe.
  virtual Result<void> map(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out) = 0;
  // Makes the map report unused ranges as zeros. Reads still return their bytes. A stream ignores
  // it.
  virtual void leave_out(const std::shared_ptr<const guest::Ranges>& /*unused*/) {}

  // Fills `to`. For samples and similar reads; the pipeline has faster ways. Not thread-safe, and
  // must not run concurrently with the pipeline.
  virtual Result<void> read(GuestOffset at, std::span<std::byte> to) = 0;

  // Returns the number of threads that can fetch at the same time, each with a connection of its
  // own. 0: any number of threads can call load() and read_extent() at the same time.
  virtual size_t fetchers() const { return 0; }

  // Passes fetched chunks to the next stage; may block.
  class Fetched {
   public:
    virtual ~Fetched() = default;
    virtual void push(Chunk* chunk) = 0;
  };
  // Reads the data of chunks from the feed until the feed is exhausted, and passes the chunks on.
  // Calls prepare() on each chunk first. `index` is less than fetchers(); each must be used by one
  // thread at a time. An error if fetchers() is 0.
  virtual Result<void> fetch(size_t index, ChunkFeed& feed, const qcow2::Geometry& geometry,
                             Fetched& fetched);

  // Reads the data of a prepared chunk into its `bytes`, or compressed clusters that `reader` can
  // pass through into its `packed`. Each thread has a reader of its own. Thread-safe if fetchers()
  // is 0.
  virtual Result<void> load(Chunk& chunk, ClusterReader& reader);

  // Reads a data extent of the map, or a part of it, for thread `index`, which is less than
  // fetchers() if that is not 0. Threads with different indices may call it at the same time.
  virtual Result<void> read_extent(size_t index, const qcow2::Extent& extent,
                                   std::span<std::byte> to);

  // Returns how the clusters of a compressed extent are compressed. nullopt if unknown.
  virtual std::optional<qcow2::Layer::Compression> compression(
      const qcow2::Extent& /*extent*/) const {
    return std::nullopt;
  }
  // Returns the file that holds a data extent. nullopt if unknown.
  virtual std::optional<FileStorage::Identity> file_of(const qcow2::Extent& /*extent*/) const {
    return std::nullopt;
  }
  // Returns what a salvage could not read so far. nullptr without a salvage.
  virtual const qcow2::Losses* losses() const { return nullptr; }
};

}  // namespace vc::copy
