#include "tests/qcow2/relocate/image_states.h"

#include <algorithm>

#include "qcow2/bitmaps/bitmap_reader.h"
#include "qcow2/check/checker.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"
#include "qcow2/read/qcow2_layer.h"
#include "qcow2/repair/repair.h"
#include "tests/catch_text.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::test {

using namespace qcow2;
using support::Random;
using support::run_ok;

namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kMostReach = 8 << 20;

Bytes read_layer(const std::shared_ptr<Layer>& layer) {
  const Disk disk({layer});
  Bytes bytes(disk.size());
  REQUIRE_OK(disk.read(GuestOffset(0), bytes));
  return bytes;
}

class Observer final : public CheckObserver {
 public:
  void found(const Finding& finding) override { text += describe(finding, 1) + "\n"; }
  std::string text;
};

void let_qemu_work(const std::string& path, uint64_t size, uint64_t cluster, bool can_compress,
                   Random& random, unsigned requests) {
  std::vector<std::string> command{"qemu-io", "-f", "qcow2", "-d", "unmap"};
  // Compressed writes come last: a QEMU process that frees the cluster of its latest compressed
  // write, and then allocates that cluster for plain data, puts further compressed data in there.
  std::vector<std::string> compressed;
  for (unsigned i = 0; i < requests; ++i) {
    bool compress = false;
    uint64_t at = random.below(size / kSector) * kSector;
    uint64_t length =
        std::min<uint64_t>(random.between(1, 60) * cluster / 8 / kSector * kSector, size - at);
    length = std::max(length, kSector);
    std::string word = "write -q -P " + std::to_string(random.between(1, 255)) + " ";
    switch (random.below(can_compress ? 6 : 3)) {
      case 0:
        word = "discard -q ";
        break;
      case 1:
        word = random.chance(50) ? "write -q -z " : "write -q -z -u ";
        break;
      case 2:
        break;
      default:
        compress = true;
        at = at / cluster * cluster;
        length = std::min(cluster, size - at);
        word = random.chance(50) ? "write -q -c -s " + path + ".pattern "
                                 : "write -q -c -P " + std::to_string(random.between(1, 255)) + " ";
    }
    auto& requests_of = compress ? compressed : command;
    requests_of.emplace_back("-c");
    requests_of.push_back(word + std::to_string(at) + " " + std::to_string(length));
  }
  command.insert(command.end(), compressed.begin(), compressed.end());
  command.push_back(path);
  // QEMU does not compress a cluster that is allocated already.
  const auto done = support::run(command);
  INFO(done.describe());
  REQUIRE((done.ok() || can_compress));
}

}  // namespace

States states_of(const std::shared_ptr<Storage>& storage) {
  auto header = Header::read(*storage);
  REQUIRE_OK(header);
  auto image = Image::open(storage, *header, nullptr, std::make_shared<TableCache>(1 << 20));
  REQUIRE_OK(image);
  States states;
  const auto active = open_active_layer(*image);
  REQUIRE_OK(active);
  states["disk"] = read_layer(*active);
  for (const Snapshot& it : (*image)->snapshots()) {
    // Up to the end of the table, if that is not far: a VM state is past the end of the disk.
    const uint64_t reach = it.l1_entries * (*image)->geometry().l2_reach();
    const uint64_t size = reach <= kMostReach ? reach : it.disk_size;
    const auto layer = Qcow2Layer::open(*image, it.l1_table, it.l1_entries, size);
    REQUIRE_OK(layer);
    states["snapshot " + it.name] = read_layer(*layer);
  }
  const auto directory = read_bitmap_directory(*storage, *header);
  REQUIRE_OK(directory);
  for (const Bitmap& it : directory->bitmaps) {
    const BitmapReader reader(*storage, header->geometry(), it);
    Bytes bits((Bitmap::bits_for(header->size, it.granularity_bits) + 7) / 8);
    REQUIRE_OK(reader.read(0, bits));
    states["bitmap " + it.name] = bits;
  }
  return states;
}

void require_sound(const Storage& storage, bool leaks) {
  auto checker = Checker::open(storage, {});
  REQUIRE_OK(checker);
  Observer observer;
  const auto sums = checker->run(observer);
  REQUIRE_OK(sums);
  INFO(observer.text);
  REQUIRE(sums->corruptions + sums->check_errors == 0);
  REQUIRE((leaks || sums->leaks == 0));
}

// Returns whether leaks are left.  They stay if they may be references of an empty table.
bool free_leaks(const std::shared_ptr<Storage>& storage) {
  RepairOptions options;
  options.what = RepairOptions::What::kAll;
  class Silent final : public CheckObserver {
    void found(const Finding& /*finding*/) override {}
  } silent;
  const auto repaired = repair(storage, options, silent);
  REQUIRE_OK(repaired);
  return repaired->after.leaks > 0;
}

// The image is consistent, and is as it was; `leaks`: clusters may have leaked.
void judge(const std::shared_ptr<Storage>& storage, const States& states, bool leaks) {
  require_sound(*storage, leaks);
  const States found = states_of(storage);
  REQUIRE(found.size() == states.size());
  for (const auto& [name, bytes] : states) {
    CAPTURE(name);
    REQUIRE(found.at(name) == bytes);
  }
}

Leaks leaks_of(const Storage& storage) {
  class Collector final : public CheckObserver {
   public:
    void found(const Finding& finding) override {
      if (finding.kind == Finding::Kind::kLeak) leaks.push_back(finding);
    }
    std::vector<Finding> leaks;
  } collector;
  auto checker = Checker::open(storage, {});
  REQUIRE_OK(checker);
  REQUIRE_OK(checker->run(collector));
  Leaks leaks;
  const uint64_t size = checker->header().geometry().cluster_size();
  for (const Finding& it : collector.leaks)
    for (uint64_t i = 0; i < it.times; ++i) {
      const HostOffset at = it.host + i * size;
      Bytes bytes(size);
      REQUIRE_OK(storage.read(at, bytes));
      leaks[at.value()] = {it.found, bytes};
    }
  return leaks;
}

std::shared_ptr<const StayingClusters> staying_of(const Storage& storage) {
  class Silent final : public Progress {
   public:
    void update(uint64_t /*done*/, uint64_t /*total*/) override {}
  } silent;
  if (leaks_of(storage).empty()) return nullptr;
  auto staying = StayingClusters::find(storage, 64 << 20, silent, {});
  REQUIRE_OK(staying);
  return std::make_shared<const StayingClusters>(std::move(*staying));
}

uint64_t clusters_of(const Storage& storage, unsigned cluster_bits) {
  const auto size = storage.size();
  REQUIRE_OK(size);
  return ((*size - 1) >> cluster_bits) + 1;
}

MadeShape make_churned(const std::string& path, Random& random) {
  MadeShape shape;
  shape.cluster_bits = static_cast<unsigned>(random.chance(80) ? random.between(9, 12) : 16);
  const uint64_t cluster = uint64_t{1} << shape.cluster_bits;
  const uint64_t size = random.between(100, 400) * std::min<uint64_t>(cluster, 8192);
  const bool v3 = random.chance(80);
  std::string options = "cluster_size=" + std::to_string(cluster);
  const unsigned refcount_order = v3 ? static_cast<unsigned>(random.between(0, 6)) : 4;
  options += v3 ? ",refcount_bits=" + std::to_string(1u << refcount_order) : ",compat=0.10";
  if (v3 && shape.cluster_bits >= 14 && random.chance(50)) options += ",extended_l2=on";
  if (v3 && random.chance(20)) options += ",lazy_refcounts=on";
  if (v3 && random.chance(30)) options += ",compression_type=zstd";
  if (random.chance(15)) options += ",preallocation=metadata";
  shape.recipe = options;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, std::to_string(size)});
  // QEMU damages images whose refcounts are too narrow for compressed clusters.
  shape.compressed = refcount_order >= 4 && random.chance(60);
  // Compresses to about a half.
  Bytes pattern(40000);
  for (size_t i = 0; i < pattern.size(); ++i)
    if (i % 512 < 250) pattern[i] = static_cast<std::byte>(random.below(256));
  support::write_file(path + ".pattern", pattern);
  const unsigned steps = static_cast<unsigned>(random.between(1, 8));
  unsigned snapshots = 0, bitmaps = 0;
  for (unsigned i = 0; i < steps; ++i) {
    let_qemu_work(path, size, cluster, shape.compressed, random,
                  static_cast<unsigned>(random.between(1, 12)));
    const uint64_t what = random.below(5);
    if (what < 2 && refcount_order >= 2) {
      run_ok({"qemu-img", "snapshot", "-c", "s" + std::to_string(++snapshots), path});
    } else if (what == 2 && snapshots > 1) {
      // May be deleted already.
      support::run(
          {"qemu-img", "snapshot", "-d", "s" + std::to_string(random.between(1, snapshots)), path});
    } else if (what == 3 && v3) {
      run_ok({"qemu-img", "bitmap", "--add", "-g", std::to_string(uint64_t{512} << random.below(8)),
              path, "b" + std::to_string(++bitmaps)});
    }
  }
  return shape;
}

}  // namespace vc::test
