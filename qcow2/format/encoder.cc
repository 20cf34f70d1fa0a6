// Compression, with the best library for each codec, level and window.
//
// Deflate on one core, MB/s and ratio, for 64 KiB of programs / of text; the reference is QEMU's
// zlib:
//
//                       programs      text
//   zlib 6, 4 KiB      41  2.80    54  4.72
//   libdeflate 1      225  2.79   325  4.98
//   libdeflate 2      164  2.89   217  5.12
//   libdeflate 6       92  3.02   125  5.61
//   isa-l 3, 32 KiB   361  2.75   378  4.86
//   isa-l 3, 4 KiB    360  2.60   367  4.32
//   isa-l 1, 4 KiB    513  2.55   629  4.11
//
// libdeflate's level 2 is four times as fast as QEMU and its output is never larger, so it is the
// default.  It cannot limit its window. isa-l can; zlib is for users who want that window and
// QEMU's size.
#include <fmt/format.h>
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#include <array>
#include <limits>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "qcow2/format/codec.h"
#include "qcow2/format/incompressible_probe.h"

namespace vc::qcow2 {

// Created once per thread.  `encode` is that of Encoder, without the check for incompressible data.
class EncodingMethod {
 public:
  EncodingMethod() = default;
  EncodingMethod(const EncodingMethod&) = delete;
  EncodingMethod& operator=(const EncodingMethod&) = delete;
  virtual ~EncodingMethod() = default;
  virtual size_t encode(std::span<const std::byte> cluster, std::span<std::byte> to) = 0;

  // nullopt if the codec itself detects incompressible data quickly.
  std::optional<IncompressibleProbe> probe;
  // The longest cluster to probe: for longer ones the codec finds matches that the probe does not.
  size_t longest_probed = std::numeric_limits<size_t>::max();
};

namespace {

constexpr unsigned kNarrowWindowBits = 12;
constexpr int kMaxIsalLevel = 3;
// From this level on zstd spends as much time on incompressible data as on any other.
constexpr int kZstdLevelToProbe = 5;
constexpr size_t kLongestForZstd = 256 << 10;

const uint8_t* bytes(std::span<const std::byte> from) {
  return reinterpret_cast<const uint8_t*>(from.data());
}
uint8_t* bytes(std::span<std::byte> to) {
  return reinterpret_cast<uint8_t*>(to.data());
}

class Zstd final : public EncodingMethod {
 public:
  explicit Zstd(int level) : context_(ZSTD_createCCtx()) {
    if (!context_) throw std::bad_alloc();
    ZSTD_CCtx_setParameter(context_, ZSTD_c_compressionLevel, level);
    if (level >= kZstdLevelToProbe) probe.emplace();
    longest_probed = kLongestForZstd;
  }
  ~Zstd() override { ZSTD_freeCCtx(context_); }

  // compress2 starts each frame from the parameters alone, writes the content size, and makes the
  // window no larger than that.
  size_t encode(std::span<const std::byte> cluster, std::span<std::byte> to) override {
    const size_t length =
        ZSTD_compress2(context_, to.data(), to.size(), cluster.data(), cluster.size());
    return ZSTD_isError(length) ? 0 : length;
  }

 private:
  ZSTD_CCtx* context_;
};

class Libdeflate final : public EncodingMethod {
 public:
  explicit Libdeflate(int level) : compressor_(libdeflate_alloc_compressor(level)) {
    if (!compressor_) throw std::bad_alloc();
    probe.emplace();
  }
  ~Libdeflate() override { libdeflate_free_compressor(compressor_); }

  size_t encode(std::span<const std::byte> cluster, std::span<std::byte> to) override {
    return libdeflate_deflate_compress(compressor_, cluster.data(), cluster.size(), to.data(),
                                       to.size());
  }

 private:
  libdeflate_compressor* compressor_;
};

class Isal final : public EncodingMethod {
 public:
  explicit Isal(int level) : level_(static_cast<uint32_t>(level)), work_(kWorkSize[level_]) {
    isal_deflate_init(&stream_);
    probe.emplace();
  }

  size_t encode(std::span<const std::byte> cluster, std::span<std::byte> to) override {
    isal_deflate_reset(&stream_);
    stream_.level = level_;
    stream_.level_buf = work_.data();
    stream_.level_buf_size = static_cast<uint32_t>(work_.size());
    stream_.hist_bits = kNarrowWindowBits;
    stream_.gzip_flag = IGZIP_DEFLATE;
    stream_.flush = NO_FLUSH;
    stream_.end_of_stream = 1;
    // isa-l only reads from next_in.
    stream_.next_in = const_cast<uint8_t*>(bytes(cluster));
    stream_.avail_in = static_cast<uint32_t>(cluster.size());
    stream_.next_out = bytes(to);
    stream_.avail_out = static_cast<uint32_t>(to.size());
    if (isal_deflate(&stream_) != COMP_OK || stream_.internal_state.state != ZSTATE_END) return 0;
    return to.size() - stream_.avail_out;
  }

 private:
  static constexpr std::array<size_t, kMaxIsalLevel + 1> kWorkSize = {
      0, ISAL_DEF_LVL1_DEFAULT, ISAL_DEF_LVL2_DEFAULT, ISAL_DEF_LVL3_DEFAULT};

  uint32_t level_;
  std::vector<uint8_t> work_;
  isal_zstream stream_{};
};

class Zlib final : public EncodingMethod {
 public:
  explicit Zlib(int level) {
    // As QEMU, except for the memory level.
    if (deflateInit2(&stream_, level, Z_DEFLATED, -static_cast<int>(kNarrowWindowBits),
                     MAX_MEM_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
      throw std::bad_alloc();
    probe.emplace();
  }
  ~Zlib() override { deflateEnd(&stream_); }

  size_t encode(std::span<const std::byte> cluster, std::span<std::byte> to) override {
    deflateReset(&stream_);
    stream_.next_in = const_cast<Bytef*>(bytes(cluster));
    stream_.avail_in = static_cast<uInt>(cluster.size());
    stream_.next_out = bytes(to);
    stream_.avail_out = static_cast<uInt>(to.size());
    return deflate(&stream_, Z_FINISH) == Z_STREAM_END ? to.size() - stream_.avail_out : 0;
  }

 private:
  z_stream stream_{};
};

std::unique_ptr<EncodingMethod> make_method(CompressionType type, int level, DeflateWindow window) {
  if (type == CompressionType::kZstd) return std::make_unique<Zstd>(level);
  if (window == DeflateWindow::k32KiB) return std::make_unique<Libdeflate>(level);
  if (level <= kMaxIsalLevel) return std::make_unique<Isal>(level);
  return std::make_unique<Zlib>(level);
}

}  // namespace

CodecLevels codec_levels(CompressionType type, DeflateWindow window) {
  if (type == CompressionType::kZstd) return {1, 22, 3};
  if (window == DeflateWindow::k32KiB) return {1, 12, 2};
  return {1, 9, kMaxIsalLevel};
}

Encoder::Encoder(std::unique_ptr<EncodingMethod> method) : method_(std::move(method)) {}
Encoder::~Encoder() = default;
Encoder::Encoder(Encoder&&) noexcept = default;
Encoder& Encoder::operator=(Encoder&&) noexcept = default;

Result<Encoder> Encoder::create(const Compression& how) {
  const CompressionType type = *how.type;
  const bool narrow = how.window == DeflateWindow::k4KiB;
  if (type == CompressionType::kZstd && narrow)
    return fail(Error::invalid("a window of 4 KiB needs zlib: zstd has no such option"));
  const CodecLevels levels = codec_levels(type, how.window);
  const int level = how.level == 0 ? levels.standard : how.level;
  if (level < levels.lowest || level > levels.highest)
    return fail(Error::invalid(fmt::format("{} level {}: must be from {} to {}{}", to_string(type),
                                           level, levels.lowest, levels.highest,
                                           narrow ? " with a window of 4 KiB" : "")));
  return Encoder(make_method(type, level, how.window));
}

size_t Encoder::encode(std::span<const std::byte> cluster, std::span<std::byte> to) {
  if (method_->probe && cluster.size() <= method_->longest_probed &&
      method_->probe->is_incompressible(cluster, to))
    return 0;
  return method_->encode(cluster, to);
}

}  // namespace vc::qcow2
