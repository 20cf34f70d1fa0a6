// Compressed clusters: the two compression types of QCOW2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/result.h"
#include "qcow2/format/header.h"

namespace vc::qcow2 {

// Decodes single clusters.  Must be used by one thread at a time.  Reuse it: its contexts are
// costly to create.
class Decoder {
 public:
  Decoder();
  ~Decoder();
  Decoder(Decoder&&) noexcept;
  Decoder& operator=(Decoder&&) noexcept;

  // Decodes one cluster and fills `cluster` exactly.  Ignores bytes of `stream` after the end of
  // the data, as QEMU does, since a descriptor counts whole sectors.  Memory use does not depend on
  // the stream.
  Result<void> decode(CompressionType type, std::span<const std::byte> stream,
                      std::span<std::byte> cluster);

  // Like decode(), and returns the number of leading bytes of `stream` that the data used.
  Result<size_t> decode_measured(CompressionType type, std::span<const std::byte> stream,
                                 std::span<std::byte> cluster);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Returns the number of leading bytes of `stream` that belong to the cluster's data, without the
// rest of the last sector. zstd mostly needs only the frame headers.  Deflate must decode, into
// `scratch` of one cluster.
Result<size_t> stream_length(CompressionType type, std::span<const std::byte> stream,
                             Decoder& decoder, std::span<std::byte> scratch);

// The maximum distance of a deflate stream's back references.  Every reader that follows the
// format, including QEMU, accepts 32 KiB. k4KiB is for readers that decode into small pieces with
// only the memory that QEMU's own streams need. zstd does not have this option.
enum class DeflateWindow { k32KiB, k4KiB };

// How to compress clusters.
struct Compression {
  std::optional<CompressionType> type = {};  // nullopt: not at all
  int level = 0;                             // 0: the codec's default
  DeflateWindow window = DeflateWindow::k32KiB;

  explicit operator bool() const { return type.has_value(); }
};

// The levels of a codec, and its default level.
struct CodecLevels {
  int lowest;
  int highest;
  int standard;
};
CodecLevels codec_levels(CompressionType type, DeflateWindow window = DeflateWindow::k32KiB);

class EncodingMethod;

// Encodes single clusters.  Must be used by one thread at a time.  Reuse it: its contexts are
// costly to create.  Does not allocate after the first cluster.
class Encoder {
 public:
  // `how` must have a type. Returns an error for a level or window that the codec does not have.
  static Result<Encoder> create(const Compression& how);
  ~Encoder();
  Encoder(Encoder&&) noexcept;
  Encoder& operator=(Encoder&&) noexcept;

  // Encodes `cluster` into `to`.  Returns the number of bytes, or 0 if that would exceed to.size ()
  // or if the cluster looks incompressible: store such a cluster uncompressed.  After a result of 0
  // the content of `to` is undefined.  On one machine the same input always gives the same output.
  size_t encode(std::span<const std::byte> cluster, std::span<std::byte> to);

 private:
  explicit Encoder(std::unique_ptr<EncodingMethod> method);
  std::unique_ptr<EncodingMethod> method_;
};

}  // namespace vc::qcow2
