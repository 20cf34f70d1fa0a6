#include "tests/interop/corner_images.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "qcow2/format/codec.h"
#include "qcow2/format/l2_entry.h"
#include "tests/interop/image_editor.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"

namespace vc::interop {

using support::run_ok;

namespace {

using Editor = ImageEditor;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kCluster = 64 << 10;

class Corners {
 public:
  explicit Corners(std::string folder) : folder_(std::move(folder)) {}

  std::vector<CornerImage> make() {
    stream_past_end("zlib");
    stream_past_end("zstd");
    large_l1();
    long_header();
    short_header();
    unknown_features();
    corrupt_bit();
    zero_flags();
    subclusters();
    backing_without_format();
    snapshot_without_size();
    data_past_end();
    return std::move(images_);
  }

 private:
  std::string add(const std::string& name) {
    images_.push_back({name, fmt::format("{}/corner{}.qcow2", folder_, images_.size())});
    return images_.back().path;
  }
  // Makes an image of 4 MiB with some content.
  std::string create(const std::string& name, const std::string& options = "compat=1.1") {
    const std::string path = add(name);
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "4M"});
    write(path, {"write -q -P 17 0 200k", "write -q -P 18 1M 64k", "write -q -z 2M 128k",
                 "write -q -c -P 19 3M 128k"});
    return path;
  }
  static void write(const std::string& path, const std::vector<std::string>& operations) {
    std::vector<std::string> command{"qemu-io", "-f", "qcow2", "-d", "unmap"};
    for (const std::string& it : operations) command.insert(command.end(), {"-c", it});
    command.push_back(path);
    run_ok(command);
  }

  void stream_past_end(const std::string& type);
  void large_l1();
  void long_header();
  void short_header();
  void unknown_features();
  void corrupt_bit();
  void zero_flags();
  void subclusters();
  void backing_without_format();
  void snapshot_without_size();
  void data_past_end();

  const std::string folder_;
  std::vector<CornerImage> images_;
};

// Makes streams that cross host cluster boundaries. The last one ends with the file, inside a
// sector.
void Corners::stream_past_end(const std::string& type) {
  const std::string raw = folder_ + "/source.raw";
  std::vector<std::byte> bytes(kMiB);
  support::Random random(7);
  // Half of each 512 bytes is compressible.
  random.fill(bytes);
  for (size_t at = 0; at < bytes.size(); ++at)
    if (at % 512 < 256) bytes[at] = std::byte{42};
  support::write_file(raw, bytes);

  const std::string path = add(type + " streams across host clusters, the last ends with the file");
  run_ok({"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=" + type,
          raw, path});
  Editor image(path);
  bool crosses = false;
  uint64_t last = 0;
  for (uint64_t guest = 0; guest < kMiB; guest += kCluster) {
    const auto it = qcow2::CompressedDescriptor::decode(image.get64(image.l2_entry_at(guest)), 16);
    const uint64_t begin = it.offset.value();
    crosses |= begin / kCluster != (begin + it.readable_bytes() - 1) / kCluster;
    const size_t there = std::min<size_t>(it.readable_bytes(), image.bytes().size() - begin);
    qcow2::Decoder decoder;
    std::vector<std::byte> cluster(kCluster);
    const auto length = decoder.decode_measured(
        type == "zstd" ? qcow2::CompressionType::kZstd : qcow2::CompressionType::kDeflate,
        std::span(image.bytes()).subspan(begin, there), cluster);
    if (!length) throw std::runtime_error(length.error().message());
    last = std::max(last, begin + *length);
  }
  if (!crosses || last % 512 == 0 || last + kCluster <= image.bytes().size())
    throw std::runtime_error("the image is not what this test wants");
  image.bytes().resize(last);
  image.save();
}

void Corners::large_l1() {
  Editor image(create("an L1 table longer than the disk needs"));
  image.put32(Editor::kL1Size, 1000);
  image.save();
}

void Corners::long_header() {
  Editor image(create("a header of 136 bytes, with unknown fields and extensions"));
  auto extensions = image.extensions();
  extensions.insert(extensions.begin(), {0x5eedc0de, std::vector<std::byte>(13, std::byte{9})});
  extensions.push_back({0x7fffffff, {}});
  image.put_extensions(136, extensions);
  image.put(112, std::string(24, 'x'));
  image.save();
}

// Makes a header of early version 3, which has no compression type.
void Corners::short_header() {
  Editor image(create("a header of 104 bytes"));
  image.put_extensions(104, image.extensions());
  image.save();
}

void Corners::unknown_features() {
  Editor image(create("unknown compatible and autoclear features"));
  image.put64(Editor::kCompatible, uint64_t{1} << 40 | 2);
  image.put64(Editor::kAutoclear, uint64_t{1} << 63 | 4);
  image.save();
}

void Corners::corrupt_bit() {
  Editor image(create("marked as corrupt"));
  image.put64(Editor::kIncompatible, 2);
  image.save();
}

void Corners::zero_flags() {
  Editor image(create("zero flags with and without an offset"));
  for (const uint64_t guest : {uint64_t{0}, 2 * kCluster, kMiB}) {
    const uint64_t at = image.l2_entry_at(guest);
    image.put64(at, image.get64(at) | 1);
  }
  image.put64(image.l2_entry_at(kMiB + 5 * kCluster), 1);
  image.save();
}

// Each subcluster has a random state (allocated, zero, neither), in clusters with and without an
// offset.
void Corners::subclusters() {
  const std::string base = create("the backing file of the next");
  const std::string path = add("extended L2 entries in all states");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", base, "-F",
          "qcow2", path, "4M"});
  write(path, {"write -q -P 33 0 2M", "write -q -c -P 34 2M 64k"});
  Editor image(path);
  support::Random random(11);
  for (uint64_t guest = 0; guest < 4 * kMiB; guest += kCluster) {
    const uint64_t at = image.l2_entry_at(guest);
    const uint64_t entry = image.get64(at);
    if ((entry & qcow2::kEntryCompressed) != 0) continue;
    uint64_t states = random.next();
    // Sometimes all subclusters have the same state.
    if (random.chance(10)) states = random.chance(50) ? 0 : UINT64_MAX;
    uint64_t allocated = states & UINT32_MAX & random.next();
    if (entry == 0) allocated = 0;
    const uint64_t zero = states >> 32 & ~allocated;
    image.put64(at + 8, zero << 32 | allocated);
  }
  image.save();
}

// QEMU then detects the format from the content.  All images made before 2011 are like this.
void Corners::backing_without_format() {
  for (const char* format : {"qcow2", "raw"}) {
    const std::string base = fmt::format("{}/unnamed-{}", folder_, format);
    run_ok({"qemu-img", "create", "-q", "-f", format, base, "2M"});
    run_ok({"qemu-io", "-f", format, "-c", "write -q -P 71 64k 1M", base});
    const std::string path = add(fmt::format("a {} backing file whose format is not said", format));
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", format, path, "4M"});
    write(path, {"write -q -P 72 100k 100k"});
    Editor image(path);
    // The backing format becomes an unknown extension.
    if (image.get32(112) != 0xe2792aca) throw std::runtime_error("no backing format there");
    image.put32(112, 0x12345678);
    image.save();
  }
}

// In version 2, extra data with the disk's size may be missing.
void Corners::snapshot_without_size() {
  const std::string path = create("a snapshot that does not say its size", "compat=0.10");
  run_ok({"qemu-img", "snapshot", "-q", "-c", "old", path});
  write(path, {"write -q -P 21 100k 500k"});
  Editor image(path);
  const uint64_t at = image.get64(Editor::kSnapshotOffset);
  constexpr uint64_t kFixed = 40;  // bytes before the extra data; its length is the last 4
  const uint32_t extra = image.get32(at + kFixed - 4);
  if (extra < 16) throw std::runtime_error("the snapshot has no extra data");
  const auto names = std::vector<std::byte>(
      image.bytes().begin() + static_cast<ptrdiff_t>(at + kFixed + extra),
      image.bytes().begin() + static_cast<ptrdiff_t>(at + kFixed + extra + 8));
  image.put32(at + kFixed - 4, 0);
  image.put(at + kFixed, names);
  image.save();
}

// Makes a file that ends inside its last data cluster. The missing part reads as zeros.
void Corners::data_past_end() {
  const std::string path = add("the file ends inside the last data cluster");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "4M"});
  write(path, {"write -q -P 5 0 64k", "write -q -P 6 1M 64k"});
  Editor image(path);
  const uint64_t host = image.get64(image.l2_entry_at(kMiB)) & qcow2::kEntryOffsetMask;
  if (host + kCluster < image.bytes().size()) throw std::runtime_error("not the last cluster");
  image.bytes().resize(host + 1000);
  image.save();
}

}  // namespace

std::vector<CornerImage> make_corner_images(const std::string& folder) {
  return Corners(folder).make();
}

}  // namespace vc::interop
