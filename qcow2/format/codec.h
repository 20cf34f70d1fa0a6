// Compressed clusters: QCOW2's two compression types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "qcow2/format/header.h"

namespace qcow2 {

// Decodes single clusters.  One thread at a time; reuse it, its contexts are costly to make.
class Decoder {
 public:
  Decoder();
  ~Decoder();
  Decoder(Decoder&&) noexcept;
  Decoder& operator=(Decoder&&) noexcept;

  // Decodes one cluster: fills `cluster` exactly.  Bytes of `stream` behind the end of the data are
  // ignored, as QEMU does, since a descriptor counts whole sectors.  Memory does not depend on what
  // the stream says.
  Result<void> decode(CompressionType type, std::span<const std::byte> stream,
                      std::span<std::byte> cluster);

  // The same, and returns how many leading bytes of `stream` were the data.
  Result<size_t> decode_measured(CompressionType type, std::span<const std::byte> stream,
                                 std::span<std::byte> cluster);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The number of leading bytes of `stream` that are the cluster's data, without what lies between
// its end and the end of the last sector.  zstd only needs to look at the frame headers; deflate
// has to decode, and wants `scratch` of one cluster for it.
Result<size_t> stream_length(CompressionType type, std::span<const std::byte> stream,
                             Decoder& decoder, std::span<std::byte> scratch);

// How far back a deflate stream refers.  Every reader that follows the format, QEMU among them,
// takes 32 KiB.  k4KiB is for readers that decode into small pieces with no more memory than what
// QEMU itself writes calls for.  zstd has no such choice.
enum class DeflateWindow { k32KiB, k4KiB };

// The levels that a codec has, and the one that it takes without being told.
struct CodecLevels {
  int lowest;
  int highest;
  int standard;
};
CodecLevels codec_levels(CompressionType type, DeflateWindow window = DeflateWindow::k32KiB);

class EncodingMethod;

// Encodes single clusters.  One thread at a time; reuse it, its contexts are costly to make and
// nothing is allocated after the first cluster.
class Encoder {
 public:
  // A level of 0 is the standard one.
  static Result<Encoder> create(CompressionType type, int level,
                                DeflateWindow window = DeflateWindow::k32KiB);
  ~Encoder();
  Encoder(Encoder&&) noexcept;
  Encoder& operator=(Encoder&&) noexcept;

  // Encodes `cluster` into `to` and returns the number of bytes, or 0 when that would not be at
  // most to.size () bytes, or when the cluster looks like noise: such a cluster is stored plain.
  // What `to` holds then is undefined.  The same input gives the same output on one machine,
  // whatever was encoded before.
  size_t encode(std::span<const std::byte> cluster, std::span<std::byte> to);

 private:
  explicit Encoder(std::unique_ptr<EncodingMethod> method);
  std::unique_ptr<EncodingMethod> method_;
};

}  // namespace qcow2
