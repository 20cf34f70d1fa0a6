#include "qcow2/format/codec.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <random>
#include <vector>

#include "qcow2/format/incompressible_probe.h"
#include "tests/catch_text.h"

using namespace qcow2;
using Bytes = std::vector<std::byte>;

namespace {

// Half of it repeats, half is incompressible.
Bytes sample(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i)
    bytes[i] = i % 64 < 32 ? std::byte(i / 64) : std::byte(random() & 0x0f);
  return bytes;
}

Bytes raw_deflate(const Bytes& from, int window_bits) {
  z_stream z{};
  REQUIRE(deflateInit2(&z, 6, Z_DEFLATED, -window_bits, 9, Z_DEFAULT_STRATEGY) == Z_OK);
  Bytes to(deflateBound(&z, from.size()));
  z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(from.data()));
  z.avail_in = static_cast<uInt>(from.size());
  z.next_out = reinterpret_cast<Bytef*>(to.data());
  z.avail_out = static_cast<uInt>(to.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  to.resize(z.total_out);
  deflateEnd(&z);
  return to;
}

Bytes zstd(const Bytes& from, int level = 3) {
  Bytes to(ZSTD_compressBound(from.size()));
  to.resize(ZSTD_compress(to.data(), to.size(), from.data(), from.size(), level));
  return to;
}

// Compresses like QEMU: streamed, so that the frame does not contain the size.
Bytes zstd_streamed(const Bytes& from) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  Bytes to(ZSTD_compressBound(from.size()) + 64);
  ZSTD_outBuffer out{to.data(), to.size(), 0};
  ZSTD_inBuffer in{from.data(), from.size() / 2, 0};
  ZSTD_compressStream2(context, &out, &in, ZSTD_e_continue);
  in.size = from.size();
  REQUIRE(ZSTD_compressStream2(context, &out, &in, ZSTD_e_end) == 0);
  ZSTD_freeCCtx(context);
  to.resize(out.pos);
  return to;
}

Bytes noise(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = std::byte(random() & 0xff);
  return bytes;
}

// Decompresses like a reader with a window of only 4 KiB: takes the output in small pieces, so that
// a longer reference fails.
bool inflates_in_4k(const Bytes& stream, const Bytes& expected) {
  z_stream z{};
  REQUIRE(inflateInit2(&z, -12) == Z_OK);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stream.data()));
  z.avail_in = static_cast<uInt>(stream.size());
  Bytes made;
  Bytes piece(16);
  int status = Z_OK;
  while (status == Z_OK && made.size() <= expected.size()) {
    z.next_out = reinterpret_cast<Bytef*>(piece.data());
    z.avail_out = static_cast<uInt>(piece.size());
    status = inflate(&z, Z_NO_FLUSH);
    made.insert(made.end(), piece.begin(), piece.end() - static_cast<std::ptrdiff_t>(z.avail_out));
  }
  inflateEnd(&z);
  return status == Z_STREAM_END && made == expected;
}

// Repeats at distances from a few bytes to 32 KiB.
Bytes far_sample(size_t size) {
  std::mt19937 random(11);
  Bytes bytes = noise(size, 12);
  for (size_t at = 64; at + 64 < size;) {
    const size_t distance = 1 + random() % std::min<size_t>(at, 32767);
    const size_t length = 8 + random() % 50;
    for (size_t i = 0; i < length; ++i) bytes[at + i] = bytes[at + i - distance];
    at += length + random() % 8;
  }
  return bytes;
}

Bytes concatenated(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

struct Kind {
  CompressionType type;
  DeflateWindow window;
};

const Kind kKinds[] = {{CompressionType::kZstd, DeflateWindow::k32KiB},
                       {CompressionType::kDeflate, DeflateWindow::k32KiB},
                       {CompressionType::kDeflate, DeflateWindow::k4KiB}};

TEST_CASE("a decoder reads what an encoder has written, at every level", "[codec]") {
  const Kind kind = kKinds[GENERATE(0, 1, 2)];
  const size_t size = GENERATE(512u, 4096u, 65536u, 2u << 20);
  const int content = GENERATE(0, 1, 2);
  // Zeros, as an example of data that compresses very well.
  const Bytes cluster = content == 0   ? sample(size, 1)
                        : content == 1 ? far_sample(size)
                                       : Bytes(size);
  const CodecLevels levels = codec_levels(kind.type, kind.window);
  Decoder decoder;
  for (int level = 0; level <= levels.highest; ++level) {
    // High levels are slow.
    if (size > 65536 && level > 6) break;
    INFO(to_string(kind.type) << " level " << level << " of " << size);
    auto encoder = Encoder::create({kind.type, level, kind.window});
    REQUIRE_OK(encoder);
    Bytes stream(size - 1);
    const size_t length = encoder->encode(cluster, stream);
    REQUIRE(length > 0);
    REQUIRE(length < size);

    // The reader gets whole sectors, with bytes of another cluster at the end.
    for (size_t i = length; i < stream.size(); ++i) stream[i] = std::byte{0xa5};
    Bytes decoded(size);
    REQUIRE_OK(decoder.decode(kind.type, stream, decoded));
    CHECK(decoded == cluster);
    const auto measured = stream_length(kind.type, stream, decoder, decoded);
    REQUIRE_OK(measured);
    CHECK(*measured == length);
  }
}

TEST_CASE("streams with a window of 4 KiB can be decoded with a window of 4 KiB", "[codec]") {
  const size_t size = GENERATE(512u, 65536u, 1u << 20);
  const Bytes cluster = far_sample(size);
  const auto encoded = [&](int level, DeflateWindow window) {
    auto encoder = Encoder::create({CompressionType::kDeflate, level, window});
    REQUIRE_OK(encoder);
    Bytes stream(size - 1);
    stream.resize(encoder->encode(cluster, stream));
    REQUIRE(!stream.empty());
    return stream;
  };
  for (int level = 0; level <= 9; ++level) {
    INFO("level " << level << " of " << size);
    CHECK(inflates_in_4k(encoded(level, DeflateWindow::k4KiB), cluster));
  }
  // Without this, the reader would prove nothing.
  if (size > 4096) CHECK_FALSE(inflates_in_4k(encoded(0, DeflateWindow::k32KiB), cluster));
}

TEST_CASE("encoding a cluster does not depend on earlier clusters", "[codec]") {
  const Kind kind = kKinds[GENERATE(0, 1, 2)];
  const int level = GENERATE(0, 1, 2, 6);
  auto fresh = Encoder::create({kind.type, level, kind.window});
  auto used = Encoder::create({kind.type, level, kind.window});
  Bytes a(65535), b(65535), other(65535);
  used->encode(sample(65536, 7), other);
  used->encode(noise(65536, 8), other);
  // The encoder stops in the middle, because the buffer is full.
  CHECK(used->encode(sample(65536, 7), std::span(other).first(100)) == 0);
  const size_t a_length = fresh->encode(sample(65536, 2), a);
  const size_t b_length = used->encode(sample(65536, 2), b);
  CHECK(a_length == b_length);
  CHECK(std::equal(a.begin(), a.begin() + static_cast<ptrdiff_t>(a_length), b.begin()));
}

TEST_CASE("a cluster that does not become smaller is not compressed", "[codec]") {
  const Kind kind = kKinds[GENERATE(0, 1, 2)];
  const size_t size = GENERATE(512u, 65536u, 1u << 20);
  for (const int level : {0, 1, 5, 9}) {
    INFO(to_string(kind.type) << " level " << level << " of " << size);
    auto encoder = Encoder::create({kind.type, level, kind.window});
    Bytes stream(size - 1);
    CHECK(encoder->encode(noise(size, 3), stream) == 0);
  }
}

TEST_CASE("incompressible data is distinguished from similar data", "[codec]") {
  const size_t size = GENERATE(4096u, 65536u, 256u << 10);
  IncompressibleProbe probe;
  Bytes scratch(size - 1);
  const Bytes random = noise(size, 6);
  CHECK(probe.is_incompressible(random, scratch));
  CHECK_FALSE(probe.is_incompressible(sample(size, 6), scratch));
  CHECK_FALSE(probe.is_incompressible(Bytes(size), scratch));
  // All byte values are equally frequent, but the content repeats.
  Bytes twice = random;
  std::copy(twice.begin(), twice.begin() + static_cast<std::ptrdiff_t>(size / 2),
            twice.begin() + static_cast<std::ptrdiff_t>(size / 2));
  CHECK_FALSE(probe.is_incompressible(twice, scratch));
  CHECK(probe.is_incompressible(random, scratch));
}

TEST_CASE("incompressible data that repeats at a distance is compressed", "[codec]") {
  const size_t size = GENERATE(65536u, 256u << 10, 2u << 20);
  Bytes cluster = noise(size / 2, 7);
  cluster.insert(cluster.end(), cluster.begin(), cluster.end());
  auto encoder = Encoder::create({CompressionType::kZstd, GENERATE(5, 9)});
  Bytes stream(size - 1);
  const size_t length = encoder->encode(cluster, stream);
  CHECK(length > 0);
  CHECK(length < size / 2 + size / 16);
}

TEST_CASE("deflate streams of other writers", "[codec]") {
  Decoder decoder;
  const Bytes cluster = sample(65536, 4);
  Bytes decoded(65536);
  SECTION("any window") {
    const Bytes stream = raw_deflate(cluster, GENERATE(9, 12, 15));
    REQUIRE_OK(decoder.decode(CompressionType::kDeflate, stream, decoded));
    CHECK(decoded == cluster);
  }
  SECTION("a stream that continues after the cluster is full is accepted, as in QEMU") {
    Bytes longer = concatenated(cluster, sample(100, 9));
    REQUIRE_OK(decoder.decode(CompressionType::kDeflate, raw_deflate(longer, 12), decoded));
    CHECK(decoded == cluster);
  }
  SECTION("a stream that is too short") {
    const Bytes shorter(cluster.begin(), cluster.end() - 1);
    REQUIRE_FAILS_WITH(decoder.decode(CompressionType::kDeflate, raw_deflate(shorter, 12), decoded),
                       "ends after 65535 of 65536");
  }
  SECTION("a truncated stream") {
    Bytes stream = raw_deflate(cluster, 12);
    stream.resize(stream.size() / 2);
    CHECK_FALSE(decoder.decode(CompressionType::kDeflate, stream, decoded).has_value());
  }
  SECTION("a stream with a zlib wrapper") {
    Bytes stream(compressBound(cluster.size()));
    uLongf length = stream.size();
    REQUIRE(compress(reinterpret_cast<Bytef*>(stream.data()), &length,
                     reinterpret_cast<const Bytef*>(cluster.data()), cluster.size()) == Z_OK);
    stream.resize(length);
    CHECK_FALSE(decoder.decode(CompressionType::kDeflate, stream, decoded).has_value());
  }
}

TEST_CASE("zstd streams of other writers", "[codec]") {
  Decoder decoder;
  const Bytes cluster = sample(65536, 5);
  const Bytes half(cluster.begin(), cluster.begin() + 32768);
  const Bytes rest(cluster.begin() + 32768, cluster.end());
  Bytes decoded(65536);
  const auto decode = [&](const Bytes& stream) {
    return decoder.decode(CompressionType::kZstd, stream, decoded);
  };
  SECTION("a frame without its content size") {
    const Bytes stream = concatenated(zstd_streamed(cluster), Bytes(300, std::byte{0}));
    REQUIRE_OK(decode(stream));
    CHECK(decoded == cluster);
    Bytes scratch(65536);
    const auto length = stream_length(CompressionType::kZstd, stream, decoder, scratch);
    REQUIRE_OK(length);
    CHECK(*length == stream.size() - 300);
  }
  SECTION("two frames") {
    const Bytes stream = concatenated(zstd(half), zstd(rest));
    REQUIRE_OK(decode(concatenated(stream, Bytes(10, std::byte{1}))));
    CHECK(decoded == cluster);
    Bytes scratch(65536);
    CHECK(*stream_length(CompressionType::kZstd, stream, decoder, scratch) == stream.size());
  }
  SECTION("a frame that holds more than a cluster") {
    REQUIRE_FAILS_WITH(decode(zstd(concatenated(cluster, half))), "bad zstd frame");
  }
  SECTION("a frame that holds less than a cluster") {
    REQUIRE_FAILS_WITH(decode(zstd(half)), "end after 32768 of 65536");
    CHECK_FALSE(stream_length(CompressionType::kZstd, zstd(half), decoder, decoded).has_value());
  }
  SECTION("a truncated stream") {
    Bytes stream = zstd(cluster);
    stream.resize(stream.size() - 1);
    REQUIRE_FAILS_WITH(decode(stream), "not a whole zstd frame");
  }
  SECTION("garbage") {
    REQUIRE_FAILS_WITH(decode(Bytes(100, std::byte{0x55})), "not a whole zstd frame");
    REQUIRE_FAILS_WITH(decode(Bytes()), "not a whole zstd frame");
  }
  SECTION("a decoder works after an error") {
    CHECK_FALSE(decode(Bytes(100, std::byte{0x55})).has_value());
    REQUIRE_OK(decode(zstd(cluster, 19)));
    CHECK(decoded == cluster);
  }
}

TEST_CASE("levels out of range are refused", "[codec]") {
  REQUIRE_FAILS_WITH(Encoder::create({CompressionType::kZstd, 23}), "from 1 to 22");
  REQUIRE_FAILS_WITH(Encoder::create({CompressionType::kZstd, -1}), "from 1 to 22");
  REQUIRE_FAILS_WITH(Encoder::create({CompressionType::kDeflate, 13}), "from 1 to 12");
  REQUIRE_FAILS_WITH(Encoder::create({CompressionType::kDeflate, 10, DeflateWindow::k4KiB}),
                     "from 1 to 9 with a window of 4 KiB");
  REQUIRE_FAILS_WITH(Encoder::create({CompressionType::kZstd, 3, DeflateWindow::k4KiB}),
                     "needs zlib");
}
