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
#include "qcow2/format/encryption.h"
#include "qcow2/format/geometry.h"
#include "qcow2/read/extent.h"
#include "qcow2/read/layer.h"
#include "qcow2/read/losses.h"
#include "storage/file_size.h"
#include "storage/file_storage.h"
#include "storage/offset.h"

namespace vc::qcow2 {
class Image;
}

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
  virtual std::optional<qcow2::Layer::StreamFormat> compression(
      const qcow2::Extent& /*extent*/) const {
    return std::nullopt;
  }
  // Returns the file that holds a data extent. nullopt if unknown.
  virtual std::optional<FileStorage::Identity> file_of(const qcow2::Extent& /*extent*/) const {
    return std::nullopt;
  }
  // Returns the open file that stores the data extents of this depth, at their host offsets and as
  // they read. nullptr if there is none, or unknown.
  virtual const FileStorage* plain_file(uint32_t /*depth*/) const { return nullptr; }
  // Returns what a salvage could not read so far. nullptr without a salvage.
  virtual const qcow2::Losses* losses() const { return nullptr; }

  // Returns the bytes of one request to a server. 0 if the source is not behind a server.
  virtual uint64_t request_size() const { return 0; }
  // Returns the number of chunks of `chunk_size` bytes that the fetchers can hold at the same time.
  virtual uint64_t chunks_in_flight(uint64_t /*chunk_size*/) const { return 0; }
  // Returns true if reading the source a second time costs little: no download, no pipe.
  virtual bool is_cheap_to_reread() const { return false; }

  // The images of the source, with depth 0 at the top. Servers and pipes have none.

  // Returns all open files, from the top down.
  virtual std::span<const std::shared_ptr<FileStorage>> files() const { return {}; }
  // Returns the QCOW2 image at the top. nullptr if the source is none.
  virtual const qcow2::Image* image() const { return nullptr; }
  // Returns the layer that extents of this depth belong to. nullptr if the source has no images.
  virtual const qcow2::Layer* layer(uint32_t /*depth*/) const { return nullptr; }
  // Like map(), but reports what the images store: holes of the files are not zeros, and nothing
  // is left out. Without images, the host offset of an extent is its guest offset.
  virtual Result<void> map_stored(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out);
  // Returns the size of the files that a copy replaces: all except a backing file that the copy
  // keeps, and the files below it. nullopt if the source has no files.
  virtual Result<std::optional<FileSize>> replaced_size() const {
    return std::optional<FileSize>{};
  }
  // Encrypted data that a copy of the source reads.
  struct EncryptedData {
    std::string file;                              // the first that has some, from the top down
    std::shared_ptr<const qcow2::Encryption> top;  // of the image at the top; nullptr: none
  };
  // Returns nullopt if no file that a copy replaces is encrypted.
  virtual std::optional<EncryptedData> encrypted_data() const { return std::nullopt; }
  // Changes the map to that of a copy which keeps `base`, a backing file of this source, with
  // clusters of `unit` bytes. Returns the format of `base`. An error if the source has no images.
  virtual Result<std::string> keep_backing(const std::string& base, uint64_t unit);
};

}  // namespace vc::copy
