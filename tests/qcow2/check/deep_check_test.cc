// Damage that only decoding finds.
#include <fmt/format.h>

#include <algorithm>

#include "qcow2/format/l2_entry.h"
#include "tests/catch.h"
#include "tests/interop/image_editor.h"
#include "tests/qcow2/check/both_checks.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::checks {

using interop::ImageEditor;
using qcow2::CompressedDescriptor;
using qcow2::Finding;
using Kind = Finding::Kind;
using support::run_ok;

namespace {

constexpr uint64_t kCluster = 64 << 10;
constexpr unsigned kClusters = 24;

OurAnswer deep(const std::string& path) {
  qcow2::CheckOptions options;
  options.deep = true;
  return ask_us(path, options);
}

const Finding* find(const OurAnswer& answer, Kind kind) {
  const auto found = std::find_if(answer.findings.begin(), answer.findings.end(),
                                  [&](const Finding& it) { return it.kind == kind; });
  return found == answer.findings.end() ? nullptr : &*found;
}

// Makes compressed clusters of random data and zeros, several in each cluster of the file.
class Images {
 public:
  explicit Images(const std::string& type) {
    const std::string raw = folder_ / "disk.raw";
    std::vector<std::byte> bytes(kClusters * kCluster);
    support::Random random(17);
    for (unsigned i = 0; i < kClusters; ++i)
      random.fill(std::span(bytes).subspan(i * kCluster, 20000 + 500 * i));
    support::write_file(raw, bytes);
    run_ok({"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
            "compression_type=" + type, raw, path_});
  }
  const std::string& path() const { return path_; }
  ImageEditor editor() const { return ImageEditor(path_); }
  static CompressedDescriptor descriptor(const ImageEditor& it, unsigned cluster) {
    return CompressedDescriptor::decode(it.get64(it.l2_entry_at(cluster * kCluster)), 16);
  }
  // Returns a compressed cluster that ends in the last sectors of a cluster of the file. A longer
  // descriptor would reach into the next cluster.
  static unsigned near_an_end(const ImageEditor& it) {
    for (unsigned i = 0; i + 1 < kClusters; ++i) {
      const auto descriptor = Images::descriptor(it, i);
      const uint64_t end = descriptor.offset.value() + descriptor.readable_bytes();
      if (end % kCluster == 0) continue;
      if (descriptor.offset.value() / kCluster == end / kCluster &&
          kCluster - end % kCluster < 30000)
        return i;
    }
    FAIL("no cluster is where it is needed");
    return 0;
  }

 private:
  support::TempDirectory folder_;
  const std::string path_ = folder_ / "disk.qcow2";
};

}  // namespace

TEST_CASE("a deep check of a valid image finds nothing", "[deep]") {
  for (const char* type : {"zlib", "zstd"}) {
    const Images images(type);
    const OurAnswer answer = deep(images.path());
    INFO(answer.says);
    CHECK(answer.exit_code == 0);
    CHECK(answer.findings.empty());
    CHECK(answer.sums.decoded_clusters == kClusters);
    CHECK(answer.sums.undecodable_clusters == 0);
  }
}

TEST_CASE("only decoding finds a damaged stream", "[deep]") {
  for (const char* type : {"zlib", "zstd"}) {
    const Images images(type);
    ImageEditor editor = images.editor();
    const auto stream = Images::descriptor(editor, 5);
    // Damages the stream after its first bytes, which are zstd's magic number.
    for (uint64_t at = 0; at < 64; at += 8) editor.put64(stream.offset.value() + at, UINT64_MAX);
    editor.save();
    CHECK(ask_us(images.path()).exit_code == 0);
    const OurAnswer answer = deep(images.path());
    INFO(answer.says);
    CHECK(answer.exit_code == 2);
    CHECK(answer.sums.undecodable_clusters == 1);
    const Finding* const finding = find(answer, Kind::kStreamDamaged);
    REQUIRE(finding != nullptr);
    CHECK(finding->guest->value() == 5 * kCluster);
    CHECK(finding->host == stream.offset);
    CHECK(!finding->repairable);
  }
}

TEST_CASE("a descriptor that is too long is reported instead of its neighbour's refcount",
          "[deep]") {
  const Images images("zlib");
  ImageEditor editor = images.editor();
  const unsigned cluster = Images::near_an_end(editor);
  const uint64_t entry = editor.l2_entry_at(cluster * kCluster);
  const uint64_t good = editor.get64(entry);
  auto longer = Images::descriptor(editor, cluster);
  longer.sectors += 64;
  editor.put64(entry, longer.encode(16));
  editor.save();
  const OurAnswer plain = ask_us(images.path());
  CHECK(plain.has(Kind::kRefcountTooLow));
  const OurAnswer answer = deep(images.path());
  INFO(answer.says);
  CHECK(answer.exit_code == 2);
  CHECK(answer.sums.corruptions == 1);
  CHECK(answer.sums.undecodable_clusters == 0);
  const Finding* const finding = find(answer, Kind::kDescriptorTooLong);
  REQUIRE(finding != nullptr);
  CHECK(finding->expected == good);
  CHECK(finding->entry->value() == entry);
  CHECK(finding->repairable);
}

TEST_CASE("a descriptor that is too short is distinguished from a damaged stream", "[deep]") {
  for (const char* type : {"zlib", "zstd"}) {
    const Images images(type);
    ImageEditor editor = images.editor();
    const uint64_t entry = editor.l2_entry_at(3 * kCluster);
    const uint64_t good = editor.get64(entry);
    auto shorter = Images::descriptor(editor, 3);
    shorter.sectors /= 2;
    editor.put64(entry, shorter.encode(16));
    editor.save();
    const OurAnswer answer = deep(images.path());
    INFO(answer.says);
    CHECK(answer.exit_code == 2);
    const Finding* const finding = find(answer, Kind::kDescriptorTooShort);
    REQUIRE(finding != nullptr);
    CHECK(finding->expected == good);
    CHECK(!answer.has(Kind::kStreamDamaged));
  }
}

TEST_CASE("a stream that is truncated by the end of the file", "[deep]") {
  const Images images("zlib");
  ImageEditor editor = images.editor();
  const auto last = Images::descriptor(editor, kClusters - 1);
  editor.bytes().resize(last.offset.value() + 1000);
  editor.save();
  // Less than a cluster too long: qemu-img accepts it.
  CHECK(ask_us(images.path()).exit_code == 2);
  const OurAnswer answer = deep(images.path());
  INFO(answer.says);
  CHECK(answer.exit_code == 2);
  CHECK(answer.has(Kind::kStreamTruncated));
}

TEST_CASE("a descriptor that is too long within its cluster is only a note", "[deep]") {
  const Images images("zlib");
  ImageEditor editor = images.editor();
  unsigned cluster = 0;
  const auto room = [&](unsigned i) {
    const auto it = Images::descriptor(editor, i);
    const uint64_t end = it.offset.value() + it.readable_bytes();
    return it.offset.value() / kCluster == (end + 512) / kCluster;
  };
  while (!room(cluster)) ++cluster;
  const uint64_t entry = editor.l2_entry_at(cluster * kCluster);
  auto longer = Images::descriptor(editor, cluster);
  longer.sectors += 1;
  editor.put64(entry, longer.encode(16));
  editor.save();
  const OurAnswer answer = deep(images.path());
  INFO(answer.says);
  CHECK(answer.exit_code == 0);
  const Finding* const finding = find(answer, Kind::kDescriptorTooLong);
  REQUIRE(finding != nullptr);
  CHECK(finding->severity == Finding::Severity::kNote);
}

}  // namespace vc::checks
