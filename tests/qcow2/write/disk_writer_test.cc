// Compares a written disk with an array in memory, also after a loss of power.
#include "qcow2/write/disk_writer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <thread>

#include "qcow2/build/builder.h"
#include "qcow2/read/chain.h"
#include "storage/file_storage.h"
#include "tests/catch_text.h"
#include "tests/qcow2/write/crash_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using namespace qcow2;
using support::Random;

namespace {

using Bytes = std::vector<std::byte>;

struct Shape {
  unsigned cluster_bits;
  unsigned refcount_bits = 16;
  bool extended_l2 = false;
  bool version2 = false;
  bool data_file = false;
  bool lazy = false;
  uint64_t size = 0;          // bytes
  uint64_t backing_size = 0;  // bytes; 0: none
};

Shape random_shape(Random& random) {
  Shape shape{static_cast<unsigned>(random.between(9, 17))};
  shape.extended_l2 = shape.cluster_bits >= 14 && random.chance(50);
  shape.version2 = !shape.extended_l2 && random.chance(20);
  if (!shape.version2) {
    shape.refcount_bits = 1u << random.between(2, 6);
    shape.data_file = random.chance(15);
    shape.lazy = random.chance(25);
  }
  const unsigned unit = std::max(shape.cluster_bits, 12u);
  shape.size = random.between(1, unit == 12 ? 400 : 60) << unit;
  shape.size -= random.below(uint64_t{1} << (unit - 9)) * 512;
  if (!shape.data_file && random.chance(50))
    shape.backing_size = random.between(1, shape.size / 512 * 3 / 2) * 512;
  return shape;
}

void write_file(const std::string& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.good());
}

// Makes the image and its backing files in `folder`. Returns the bytes of the disk.
Bytes create(const support::TempDirectory& folder, const Shape& shape, Random& random) {
  Bytes model(shape.size);
  std::string options = "cluster_size=" + std::to_string(1u << shape.cluster_bits);
  options +=
      shape.version2 ? ",compat=0.10" : ",refcount_bits=" + std::to_string(shape.refcount_bits);
  if (shape.extended_l2) options += ",extended_l2=on";
  if (shape.lazy) options += ",lazy_refcounts=on";
  if (shape.data_file) options += ",data_file=" + (folder / "data");
  std::vector<std::string> command{"qemu-img", "create", "-q", "-f", "qcow2", "-o", options};
  if (shape.backing_size > 0) {
    Bytes backing(shape.backing_size);
    random.fill(backing);
    write_file(folder / "base", backing);
    std::copy_n(backing.begin(), std::min(backing.size(), model.size()), model.begin());
    command.insert(command.end(), {"-b", folder / "base", "-F", "raw"});
  }
  command.insert(command.end(), {folder / "disk", std::to_string(shape.size)});
  support::run_ok(command);
  return model;
}

std::vector<std::shared_ptr<Layer>> backing_of(const support::TempDirectory& folder,
                                               const Shape& shape) {
  if (shape.backing_size == 0) return {};
  OpenOptions options;
  options.format = Format::kRaw;
  auto chain = Chain::open(folder / "base", options);
  REQUIRE_OK(chain);
  return chain->disk().layers();
}

std::unique_ptr<DiskWriter> open_writer(const support::TempDirectory& folder, const Shape& shape,
                                        std::shared_ptr<Storage> storage, Random& random) {
  auto header = Header::read(*storage);
  REQUIRE_OK(header);
  std::shared_ptr<Storage> data;
  if (shape.data_file) {
    auto opened = FileStorage::open_writable(folder / "data");
    REQUIRE_OK(opened);
    data = *opened;
  }
  DiskWriter::Options options;
  options.changes_limit = random.chance(50) ? 1 << 14 : 16 << 20;
  auto writer = DiskWriter::open(
      std::move(storage), *header, data, backing_of(folder, shape),
      std::make_shared<TableCache>(random.chance(50) ? 1 << 15 : 1 << 22), options);
  REQUIRE_OK(writer);
  return std::move(*writer);
}

// Records the first complaint of any thread, since threads cannot use Catch2.
class Complaints {
 public:
  void add(std::string text) {
    const std::lock_guard lock(mutex_);
    if (first_.empty()) first_ = std::move(text);
  }
  void check(const Result<void>& result) {
    if (!result) add(result.error().message());
  }
  std::string first() const { return first_; }

 private:
  std::mutex mutex_;
  std::string first_;
};

// The bytes of the disk. Marks those that changed after they were last known to be on stable
// storage.
struct Model {
  explicit Model(Bytes initial) : bytes(std::move(initial)), touched(bytes.size()) {}

  void put(uint64_t at, std::span<const std::byte> from) {
    std::copy(from.begin(), from.end(), bytes.begin() + static_cast<ptrdiff_t>(at));
    std::fill_n(touched.begin() + static_cast<ptrdiff_t>(at), from.size(), char{1});
  }
  void clear(uint64_t at, uint64_t length) { put(at, Bytes(length)); }

  Bytes bytes;
  std::vector<char> touched;  // not vector<bool>: threads change neighbours
};

// Sends random requests to the parts of the disk that belong to thread `own` of `threads`: every
// `threads`-th piece of 1536 bytes. So every cluster has parts of several threads.
void work(DiskWriter& writer, const Shape& shape, Model& model, unsigned own, unsigned threads,
          int requests, Random random, Complaints& complaints) {
  constexpr uint64_t kStretch = 1536;
  Bytes buffer;
  for (int i = 0; i < requests; ++i) {
    uint64_t at = random.below(shape.size);
    uint64_t length = random.between(1, random.chance(75) ? 3000 : 200000);
    if (threads > 1) {
      at = at / (kStretch * threads) * kStretch * threads + own * kStretch + random.below(kStretch);
      if (at >= shape.size) continue;
      length = std::min(length, kStretch - at % kStretch);
    }
    length = std::min(length, shape.size - at);
    switch (random.below(8)) {
      case 0:
        complaints.check(writer.zero(GuestOffset(at), length, random.chance(50)));
        model.clear(at, length);
        break;
      case 1: {
        // With other threads in the same clusters, the expected result would be unknown.
        if (threads > 1) break;
        complaints.check(writer.discard(GuestOffset(at), length));
        const uint64_t cluster = uint64_t{1} << shape.cluster_bits;
        const uint64_t first = (at + cluster - 1) / cluster * cluster;
        const uint64_t end =
            at + length == shape.size ? shape.size : (at + length) / cluster * cluster;
        if (first < end && !(shape.version2 && shape.backing_size > 0))
          model.clear(first, end - first);
        if (!shape.extended_l2) break;
        // Parts of clusters are zeros or unchanged.
        buffer.resize(length);
        complaints.check(writer.read(GuestOffset(at), buffer));
        for (uint64_t k = 0; k < length; ++k)
          if (buffer[k] != model.bytes[at + k] && buffer[k] != std::byte{0})
            complaints.add("wrong bytes after a discard at " + std::to_string(at + k));
        model.put(at, buffer);
        break;
      }
      case 2:
        if (random.chance(25)) complaints.check(writer.flush());
        break;
      case 3:
        buffer.resize(length);
        complaints.check(writer.read(GuestOffset(at), buffer));
        if (std::memcmp(buffer.data(), model.bytes.data() + at, length) != 0)
          complaints.add("wrong bytes at " + std::to_string(at));
        break;
      default:
        buffer.resize(length);
        random.fill(buffer);
        if (random.chance(20)) std::memset(buffer.data(), 0, length);
        complaints.check(writer.write(GuestOffset(at), buffer));
        model.put(at, buffer);
    }
  }
}

// Sometimes takes a snapshot or writes a compressed cluster, so that later writes must copy data.
void let_qemu_work(const support::TempDirectory& folder, const Shape& shape, int round,
                   Bytes& model, Random& random) {
  if (shape.data_file) return;
  const std::string image = folder / "disk";
  if (random.chance(40))
    support::run_ok({"qemu-img", "snapshot", "-c", "s" + std::to_string(round), image});
  const uint64_t cluster = uint64_t{1} << shape.cluster_bits;
  if (shape.size < cluster || !random.chance(60)) return;
  const uint64_t at = random.below(shape.size / cluster) * cluster;
  // QEMU refuses it if the cluster is allocated already.
  const auto done = support::run(
      {"qemu-io", "-f", "qcow2", "-c",
       "write -q -c -P 77 " + std::to_string(at) + " " + std::to_string(cluster), image});
  if (done.ok()) std::memset(model.data() + at, 77, cluster);
}

// Checks for errors, leaks, and the bytes of the model.
void judge(const support::TempDirectory& folder, const Bytes& model) {
  const auto check = support::run({"qemu-img", "check", "-f", "qcow2", folder / "disk"});
  INFO(check.describe());
  REQUIRE(check.exit_code == 0);
  write_file(folder / "model", model);
  const auto same = support::run(
      {"qemu-img", "compare", "-f", "qcow2", "-F", "raw", folder / "disk", folder / "model"});
  INFO(same.describe());
  REQUIRE(same.exit_code == 0);
}

}  // namespace

TEST_CASE("a disk that is written holds what was written", "[writer][threads]") {
  const uint64_t images = support::iterations(12);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const Shape shape = random_shape(random);
    CAPTURE(seed, shape.cluster_bits, shape.refcount_bits, shape.extended_l2, shape.version2,
            shape.data_file, shape.lazy, shape.size, shape.backing_size);
    const support::TempDirectory folder;
    Model model(create(folder, shape, random));
    for (int round = 0; round < 3; ++round) {
      let_qemu_work(folder, shape, round, model.bytes, random);
      auto file = FileStorage::open_writable(folder / "disk");
      REQUIRE_OK(file);
      const auto writer = open_writer(folder, shape, *file, random);
      Complaints complaints;
      const unsigned count = random.chance(50) ? 1 : 4;
      std::vector<std::thread> threads;
      for (unsigned t = 0; t < count; ++t)
        threads.emplace_back([&, t, forked = Random(random.next())] {
          work(*writer, shape, model, t, count, 100, forked, complaints);
        });
      for (std::thread& thread : threads) thread.join();
      REQUIRE(complaints.first().empty());
      REQUIRE_OK(writer->close());
      judge(folder, model.bytes);
    }
  }
}

TEST_CASE("a loss of power corrupts nothing, and loses nothing that was flushed", "[writer]") {
  const uint64_t images = support::iterations(12);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    Shape shape = random_shape(random);
    shape.data_file = false;
    CAPTURE(seed, shape.cluster_bits, shape.refcount_bits, shape.extended_l2, shape.version2,
            shape.lazy, shape.size, shape.backing_size);
    const support::TempDirectory folder;
    Model model(create(folder, shape, random));
    let_qemu_work(folder, shape, 0, model.bytes, random);
    const auto storage = std::make_shared<test::CrashStorage>(support::read_file(folder / "disk"));
    const auto writer = open_writer(folder, shape, storage, random);
    std::mt19937_64 crash_random(seed);
    Complaints complaints;
    for (int step = 0; step < 24; ++step) {
      work(*writer, shape, model, 0, 1, 4, Random(random.next()), complaints);
      REQUIRE(complaints.first().empty());
      if (random.chance(30)) {
        REQUIRE_OK(writer->flush());
        std::fill(model.touched.begin(), model.touched.end(), char{0});
      }
      write_file(folder / "disk", storage->after_crash(crash_random));
      if (shape.lazy) {
        // The refcounts may be wrong. Opening the image repairs them, and the check finds no
        // errors.
        auto file = FileStorage::open_writable(folder / "disk");
        REQUIRE_OK(file);
        REQUIRE_OK(open_writer(folder, shape, *file, random)->close());
      }
      const auto check = support::run({"qemu-img", "check", "-q", "-f", "qcow2", folder / "disk"});
      INFO(check.describe());
      // Exit code 3 means leaks, which are allowed.
      REQUIRE((check.exit_code == 0 || (check.exit_code == 3 && !shape.lazy)));
      OpenOptions options;
      options.format = Format::kQcow2;
      const auto chain = Chain::open(folder / "disk", options);
      REQUIRE_OK(chain);
      Bytes found(shape.size);
      REQUIRE_OK(chain->disk().read(GuestOffset(0), found));
      uint64_t lost = 0;
      for (uint64_t at = 0; at < shape.size; ++at)
        lost += found[at] != model.bytes[at] && model.touched[at] == 0;
      REQUIRE(lost == 0);
      if (!random.chance(25)) continue;
      // The image can be used after a crash.
      Model after(found);
      auto file = FileStorage::open_writable(folder / "disk");
      REQUIRE_OK(file);
      const auto again = open_writer(folder, shape, *file, random);
      work(*again, shape, after, 0, 1, 20, Random(random.next()), complaints);
      REQUIRE(complaints.first().empty());
      REQUIRE_OK(again->close());
      const auto recheck =
          support::run({"qemu-img", "check", "-q", "-f", "qcow2", folder / "disk"});
      INFO(recheck.describe());
      REQUIRE((recheck.exit_code == 0 || recheck.exit_code == 3));
    }
  }
}

TEST_CASE("a full disk fails the request and nothing else", "[writer]") {
  const uint64_t images = support::iterations(12);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    Shape shape = random_shape(random);
    shape.data_file = false;
    CAPTURE(seed, shape.cluster_bits, shape.refcount_bits, shape.extended_l2, shape.version2,
            shape.lazy, shape.size, shape.backing_size);
    const support::TempDirectory folder;
    const Bytes model = create(folder, shape, random);
    const auto storage = std::make_shared<test::CrashStorage>(support::read_file(folder / "disk"));
    const auto writer = open_writer(folder, shape, storage, random);
    Bytes buffer(std::min<uint64_t>(shape.size, 5000));
    for (int attempt = 0; attempt < 30; ++attempt) {
      storage->fail_after(random.between(1, 12));
      for (int request = 0; request < 6; ++request) {
        random.fill(buffer);
        const GuestOffset at(random.below(shape.size - buffer.size() + 1));
        // Whether they succeed depends on the point at which the disk is full.
        if (random.chance(70))
          (void)writer->write(at, buffer);
        else
          (void)writer->zero(at, buffer.size(), true);
        if (random.chance(30)) (void)writer->flush();
      }
      // There is free space again, and later writes succeed.
      storage->fail_after(0);
      random.fill(buffer);
      REQUIRE_OK(writer->write(GuestOffset(0), buffer));
      REQUIRE_OK(writer->flush());
      Bytes found(buffer.size());
      REQUIRE_OK(writer->read(GuestOffset(0), found));
      REQUIRE(found == buffer);
    }
    REQUIRE_OK(writer->close());
    Bytes bytes(*storage->size());
    REQUIRE(storage->read(HostOffset(0), bytes) == bytes.size());
    write_file(folder / "disk", bytes);
    const auto check = support::run({"qemu-img", "check", "-q", "-f", "qcow2", folder / "disk"});
    INFO(check.describe());
    REQUIRE((check.exit_code == 0 || check.exit_code == 3));
  }
}

TEST_CASE("an image that is marked corrupt is not written", "[writer]") {
  const support::TempDirectory folder;
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "disk", "1M"});
  Bytes bytes = support::read_file(folder / "disk");
  bytes[79] = static_cast<std::byte>(incompatible::kCorrupt);
  const auto storage = std::make_shared<test::CrashStorage>(bytes);
  REQUIRE_FAILS_WITH(DiskWriter::open(storage, *Header::read(*storage), nullptr, {},
                                      std::make_shared<TableCache>(1 << 20), {}),
                     "marked corrupt");
}

TEST_CASE("the file shrinks when its end is discarded", "[writer]") {
  const support::TempDirectory folder;
  Random random(1);
  Shape shape{16};
  shape.size = 8 << 20;
  Bytes model = create(folder, shape, random);
  for (const bool discard : {false, true}) {
    auto file = FileStorage::open_writable(folder / "disk");
    REQUIRE_OK(file);
    const auto writer = open_writer(folder, shape, *file, random);
    if (discard) {
      REQUIRE_OK(writer->discard(GuestOffset(1 << 20), 7 << 20));
      std::fill(model.begin() + (1 << 20), model.end(), std::byte{0});
    } else {
      std::fill(model.begin(), model.end(), std::byte{7});
      REQUIRE_OK(writer->write(GuestOffset(0), model));
    }
    REQUIRE_OK(writer->close());
    const uint64_t length = *(*file)->size();
    CHECK(discard == (length < 2 << 20));
    CHECK(discard == (writer->statistics().truncated > 6 << 20));
    judge(folder, model);
  }
}

namespace {

// Writes the whole disk, and discards most of it in pieces.
void fill_and_trim(DiskWriter& writer, const Shape& shape, Bytes& model, Random& random) {
  Bytes buffer;
  const uint64_t cluster = uint64_t{1} << shape.cluster_bits;
  const uint64_t clusters = shape.size / cluster;
  for (uint64_t i = 0; i < clusters * 3 / 2; ++i) {
    const uint64_t at = random.below(clusters) * cluster;
    buffer.resize(random.chance(70) ? cluster : random.between(1, cluster));
    random.fill(buffer);
    REQUIRE_OK(writer.write(GuestOffset(at), buffer));
    std::copy(buffer.begin(), buffer.end(), model.begin() + static_cast<ptrdiff_t>(at));
  }
  REQUIRE_OK(writer.flush());
  for (uint64_t i = 0; i < clusters; ++i) {
    if (!random.chance(75)) continue;
    REQUIRE_OK(writer.discard(GuestOffset(i * cluster), cluster));
    std::memset(model.data() + i * cluster, 0, cluster);
  }
}

// Builds an image full of data. Its L1 table and its refcount table are at its end.
Bytes build(const support::TempDirectory& folder, const Shape& shape, Random& random) {
  MemoryStorage storage("disk");
  BuildOptions options;
  options.size = shape.size;
  options.cluster_bits = shape.cluster_bits;
  options.refcount_order = static_cast<unsigned>(std::countr_zero(shape.refcount_bits));
  options.extended_l2 = shape.extended_l2;
  options.lazy_refcounts = shape.lazy;
  const auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  Bytes model(shape.size);
  random.fill(model);
  const uint64_t clusters = shape.size >> shape.cluster_bits;
  for (uint64_t i = 0; i < clusters;) {
    const auto place = (*builder)->place_data(ClusterIndex(i), clusters - i);
    REQUIRE_OK(place);
    REQUIRE_OK(storage.write(
        place->host,
        std::span(model).subspan(i << shape.cluster_bits, place->clusters << shape.cluster_bits)));
    i += place->clusters;
  }
  REQUIRE_OK((*builder)->finish());
  Bytes bytes(*storage.size());
  REQUIRE(storage.read(HostOffset(0), bytes) == bytes.size());
  write_file(folder / "disk", bytes);
  return model;
}

Shape shape_to_shrink(Random& random) {
  Shape shape = random_shape(random);
  shape.version2 = false;
  shape.size = random.between(20, 80) << shape.cluster_bits;
  shape.backing_size = 0;
  return shape;
}

}  // namespace

TEST_CASE("a file with holes shrinks to about the size in use", "[writer]") {
  const uint64_t images = support::iterations(12);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const Shape shape = shape_to_shrink(random);
    CAPTURE(seed, shape.cluster_bits, shape.refcount_bits, shape.extended_l2, shape.data_file,
            shape.lazy, shape.size);
    const support::TempDirectory folder;
    const bool built = !shape.data_file && random.chance(50);
    CAPTURE(built);
    Bytes model = built ? build(folder, shape, random) : create(folder, shape, random);
    const bool snapshot = !shape.data_file && random.chance(30);
    if (snapshot) support::run_ok({"qemu-img", "snapshot", "-c", "one", folder / "disk"});
    {
      auto file = FileStorage::open_writable(folder / "disk");
      REQUIRE_OK(file);
      const auto writer = open_writer(folder, shape, *file, random);
      fill_and_trim(*writer, shape, model, random);
      REQUIRE_OK(writer->close());
    }
    judge(folder, model);
    auto file = FileStorage::open_writable(folder / "disk");
    REQUIRE_OK(file);
    const auto header = Header::read(**file);
    REQUIRE_OK(header);
    const auto refcounts = Refcounts::load(*file, *header);
    REQUIRE_OK(refcounts);
    const uint64_t clusters = shape.size >> shape.cluster_bits;
    const uint64_t length = *(*file)->size() >> shape.cluster_bits;
    const uint64_t used = *(*refcounts)->count_used(HostCluster(length));
    CAPTURE(clusters, length, used);
    CHECK(length <= used + std::max<uint64_t>(length / 32, 1));
  }
}

TEST_CASE("a loss of power while the file shrinks corrupts nothing", "[writer]") {
  const uint64_t images = support::iterations(12);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    Shape shape = shape_to_shrink(random);
    shape.data_file = false;
    CAPTURE(seed, shape.cluster_bits, shape.refcount_bits, shape.extended_l2, shape.lazy,
            shape.size);
    const support::TempDirectory folder;
    const bool built = random.chance(50);
    CAPTURE(built);
    Bytes model = built ? build(folder, shape, random) : create(folder, shape, random);
    const auto storage = std::make_shared<test::CrashStorage>(support::read_file(folder / "disk"));
    const auto writer = open_writer(folder, shape, storage, random);
    fill_and_trim(*writer, shape, model, random);
    REQUIRE_OK(writer->flush());
    std::vector<Bytes> crashes;
    storage->crash_at_flushes(crashes, seed);
    REQUIRE_OK(writer->close());
    for (const Bytes& crash : crashes) {
      write_file(folder / "disk", crash);
      if (shape.lazy) {
        auto file = FileStorage::open_writable(folder / "disk");
        REQUIRE_OK(file);
        REQUIRE_OK(open_writer(folder, shape, *file, random)->close());
      }
      const auto check = support::run({"qemu-img", "check", "-q", "-f", "qcow2", folder / "disk"});
      INFO(check.describe());
      REQUIRE((check.exit_code == 0 || check.exit_code == 3));
      const auto chain = Chain::open(folder / "disk", {});
      REQUIRE_OK(chain);
      Bytes found(shape.size);
      REQUIRE_OK(chain->disk().read(GuestOffset(0), found));
      REQUIRE(found == model);
    }
  }
}

TEST_CASE("a cluster is freed when all of its subclusters are discarded", "[writer]") {
  const support::TempDirectory folder;
  Random random(1);
  Shape shape{16};
  shape.extended_l2 = true;
  shape.size = 1 << 20;
  Bytes model = create(folder, shape, random);
  auto file = FileStorage::open_writable(folder / "disk");
  REQUIRE_OK(file);
  const auto writer = open_writer(folder, shape, *file, random);
  std::fill_n(model.begin(), 128 << 10, std::byte{5});
  REQUIRE_OK(writer->write(GuestOffset(0), std::span(model).first(128 << 10)));
  REQUIRE_OK(writer->flush());
  // Discards half of the first cluster, rounded to whole subclusters, then the other half.
  REQUIRE_OK(writer->discard(GuestOffset(100), 32668));
  std::fill_n(model.begin() + 2048, 30720, std::byte{0});
  Bytes found(shape.size);
  REQUIRE_OK(writer->read(GuestOffset(0), found));
  CHECK(found == model);
  REQUIRE_OK(writer->flush());
  CHECK(writer->statistics().freed == 0);
  REQUIRE_OK(writer->discard(GuestOffset(0), 2048));
  REQUIRE_OK(writer->discard(GuestOffset(32768), 32768));
  std::fill_n(model.begin(), 64 << 10, std::byte{0});
  REQUIRE_OK(writer->flush());
  CHECK(writer->statistics().freed == 1);
  REQUIRE_OK(writer->close());
  judge(folder, model);
}
