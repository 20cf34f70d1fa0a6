// libFuzzer target: decodes any bytes as a compressed cluster. Encodes any cluster, and decodes the
// result.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "qcow2/format/codec.h"

using namespace vc;

namespace {

void decode(qcow2::CompressionType type, std::span<const std::byte> stream, size_t cluster_size) {
  qcow2::Decoder decoder;
  std::vector<std::byte> cluster(cluster_size), scratch(cluster_size);
  const bool decoded = decoder.decode(type, stream, cluster).has_value();
  const auto measured = decoder.decode_measured(type, stream, scratch);
  if (decoded != measured.has_value()) __builtin_trap();
  if (!decoded) return;
  if (*measured > stream.size() || cluster != scratch) __builtin_trap();
  // The decoder needs only the measured length.
  if (!decoder.decode(type, stream.first(*measured), scratch) || cluster != scratch)
    __builtin_trap();
  const auto length = qcow2::stream_length(type, stream, decoder, scratch);
  if (!length || *length != *measured) __builtin_trap();
}

void round_trip(qcow2::CompressionType type, int level, std::span<const std::byte> data,
                size_t cluster_size) {
  std::vector<std::byte> cluster(cluster_size), stream(cluster_size - 1), back(cluster_size);
  for (size_t at = 0; at < cluster_size && !data.empty(); ++at)
    cluster[at] = data[at % data.size()];
  auto encoder = qcow2::Encoder::create({type, level});
  if (!encoder) __builtin_trap();
  const size_t length = encoder->encode(cluster, stream);
  if (length == 0) return;
  qcow2::Decoder decoder;
  const auto measured = decoder.decode_measured(type, std::span(stream).first(length), back);
  if (!measured || *measured != length || back != cluster) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto type =
      (data[0] & 1) != 0 ? qcow2::CompressionType::kZstd : qcow2::CompressionType::kDeflate;
  const size_t cluster_size = size_t{512} << ((data[0] >> 1) % 8);
  const auto rest = std::span(reinterpret_cast<const std::byte*>(data), size).subspan(2);
  if ((data[0] & 0x80) != 0)
    round_trip(type, 1 + data[1] % 12, rest, cluster_size);
  else
    decode(type, rest, cluster_size);
  return 0;
}
