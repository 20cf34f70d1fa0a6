#include "qcow2/format/codec.h"

#include <fmt/format.h>
#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <limits>
#include <new>

namespace vc::qcow2 {

namespace {

struct FreeDecompressor {
  void operator()(libdeflate_decompressor* it) const { libdeflate_free_decompressor(it); }
};
struct FreeDctx {
  void operator()(ZSTD_DCtx* it) const { ZSTD_freeDCtx(it); }
};

// libdeflate requires the stream to end with the cluster.  QEMU also accepts a stream that fills
// the cluster and continues, or that lacks its last bits (zlib returns Z_BUF_ERROR with a full
// output).  Such streams are rare, so the slower decoder is acceptable.
Result<size_t> inflate_as_qemu(std::span<const std::byte> stream, std::span<std::byte> cluster) {
  z_stream z{};
  z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stream.data()));
  z.avail_in = static_cast<uInt>(stream.size());
  z.next_out = reinterpret_cast<Bytef*>(cluster.data());
  z.avail_out = static_cast<uInt>(cluster.size());
  // Raw deflate, with any window.
  if (inflateInit2(&z, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  const int status = inflate(&z, Z_FINISH);
  const size_t used = stream.size() - z.avail_in;
  const size_t made = cluster.size() - z.avail_out;
  inflateEnd(&z);
  if ((status == Z_STREAM_END || status == Z_BUF_ERROR) && made == cluster.size()) return used;
  if (status == Z_STREAM_END || status == Z_BUF_ERROR)
    return fail(Error::corrupt(
        fmt::format("the deflate stream ends after {} of {} bytes", made, cluster.size())));
  return fail(Error::corrupt("not a deflate stream"));
}

}  // namespace

struct Decoder::State {
  std::unique_ptr<libdeflate_decompressor, FreeDecompressor> deflate;
  std::unique_ptr<ZSTD_DCtx, FreeDctx> zstd;

  // Return the number of bytes of `stream` that were used.
  Result<size_t> decode_deflate(std::span<const std::byte> stream, std::span<std::byte> cluster);
  Result<size_t> decode_zstd(std::span<const std::byte> stream, std::span<std::byte> cluster);
};

Decoder::Decoder() : state_(std::make_unique<State>()) {}
Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;
Decoder& Decoder::operator=(Decoder&&) noexcept = default;

Result<size_t> Decoder::State::decode_deflate(std::span<const std::byte> stream,
                                              std::span<std::byte> cluster) {
  if (!deflate) deflate.reset(libdeflate_alloc_decompressor());
  if (!deflate) throw std::bad_alloc();
  size_t used = 0;
  if (libdeflate_deflate_decompress_ex(deflate.get(), stream.data(), stream.size(), cluster.data(),
                                       cluster.size(), &used, nullptr) == LIBDEFLATE_SUCCESS)
    return used;
  return inflate_as_qemu(stream, cluster);
}

// Decodes frame by frame directly into the cluster: a window as in the frame's header, up to 128
// MiB, is never allocated.
Result<size_t> Decoder::State::decode_zstd(std::span<const std::byte> stream,
                                           std::span<std::byte> cluster) {
  if (!zstd) zstd.reset(ZSTD_createDCtx());
  if (!zstd) throw std::bad_alloc();
  size_t used = 0;
  size_t made = 0;
  while (made < cluster.size()) {
    const auto rest = stream.subspan(used);
    const size_t frame = ZSTD_findFrameCompressedSize(rest.data(), rest.size());
    if (ZSTD_isError(frame))
      return fail(Error::corrupt(made == 0 ? std::string("not a whole zstd frame")
                                           : fmt::format("the zstd frames end after {} of {} bytes",
                                                         made, cluster.size())));
    const size_t got = ZSTD_decompressDCtx(zstd.get(), cluster.data() + made, cluster.size() - made,
                                           rest.data(), frame);
    if (ZSTD_isError(got))
      return fail(Error::corrupt(fmt::format("bad zstd frame: {}", ZSTD_getErrorName(got))));
    used += frame;
    made += got;
  }
  return used;
}

Result<void> Decoder::decode(CompressionType type, std::span<const std::byte> stream,
                             std::span<std::byte> cluster) {
  auto used = decode_measured(type, stream, cluster);
  if (!used) return fail(std::move(used).error());
  return {};
}

Result<size_t> Decoder::decode_measured(CompressionType type, std::span<const std::byte> stream,
                                        std::span<std::byte> cluster) {
  return type == CompressionType::kZstd ? state_->decode_zstd(stream, cluster)
                                        : state_->decode_deflate(stream, cluster);
}

Result<size_t> stream_length(CompressionType type, std::span<const std::byte> stream,
                             Decoder& decoder, std::span<std::byte> scratch) {
  if (type == CompressionType::kZstd) {
    size_t used = 0;
    uint64_t made = 0;
    while (made < scratch.size()) {
      const auto rest = stream.subspan(used);
      const size_t frame = ZSTD_findFrameCompressedSize(rest.data(), rest.size());
      if (ZSTD_isError(frame)) return fail(Error::corrupt("not a whole zstd frame"));
      const unsigned long long content = ZSTD_getFrameContentSize(rest.data(), rest.size());
      // A frame may omit its content size; then only decoding shows whether another one follows.
      if (content == ZSTD_CONTENTSIZE_UNKNOWN || content == ZSTD_CONTENTSIZE_ERROR)
        return decoder.decode_measured(type, stream, scratch);
      if (content > scratch.size() - made)
        return fail(Error::corrupt(fmt::format("the zstd frame says {} bytes, a cluster has {}",
                                               content, scratch.size())));
      used += frame;
      made += content;
    }
    return used;
  }
  return decoder.decode_measured(type, stream, scratch);
}

}  // namespace vc::qcow2
