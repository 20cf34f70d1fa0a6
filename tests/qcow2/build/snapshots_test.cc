// Images with snapshots that the builder lays out: counts, flags and tables at the limits of
// ranges.
#include <algorithm>
#include <functional>
#include <map>
#include <vector>

#include "base/byte_order.h"
#include "qcow2/build/builder.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/snapshot_table.h"
#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using namespace qcow2;

namespace {

// States whose clusters have numbers for contents.
class Contents final : public Sharing {
 public:
  using State = std::map<uint64_t, unsigned>;

  Contents(const Geometry& geometry, std::vector<State> states)
      : geometry_(geometry), states_(std::move(states)) {}

  Result<size_t> first_with(size_t state, ClusterIndex cluster) override {
    return first(state, [&](size_t other) { return equal(other, state, cluster.value()); });
  }
  Result<size_t> first_with_table(size_t state, uint64_t l1_index) override {
    return first(state, [&](size_t other) { return equal_table(other, state, l1_index); });
  }
  Result<uint64_t> states_with(size_t state, ClusterIndex cluster) override {
    return count_equal(state, [&](size_t other) { return equal(state, other, cluster.value()); });
  }
  Result<uint64_t> states_with_table(size_t state, uint64_t l1_index) override {
    return count_equal(state, [&](size_t other) { return equal_table(state, other, l1_index); });
  }

  size_t count() const { return states_.size(); }
  const State& state(size_t number) const { return states_[number]; }

 private:
  bool equal(size_t a, size_t b, uint64_t cluster) const {
    const auto at = [&](size_t state) {
      const auto found = states_[state].find(cluster);
      return found == states_[state].end() ? 0 : found->second;
    };
    return at(a) == at(b);
  }
  bool equal_table(size_t a, size_t b, uint64_t l1_index) const {
    for (uint64_t i = 0; i < geometry_.l2_entries(); ++i)
      if (!equal(a, b, l1_index * geometry_.l2_entries() + i)) return false;
    return true;
  }
  static size_t first(size_t state, const std::function<bool(size_t)>& is_equal) {
    for (size_t other = 0; other < state; ++other)
      if (is_equal(other)) return other;
    return state;
  }
  uint64_t count_equal(size_t state, const std::function<bool(size_t)>& is_equal) const {
    uint64_t count = 1;
    for (size_t other = state + 1; other < states_.size(); ++other) count += is_equal(other);
    return count;
  }

  const Geometry geometry_;
  const std::vector<State> states_;
};

// Builds an image of these states, and checks it with qemu-img.
class Built {
 public:
  Built(const BuildOptions& options, std::vector<Contents::State> states, bool compressed = false,
        uint64_t vm_state_size = 0)
      : options_(options), contents_(options.geometry(), std::move(states)) {
    auto builder = Builder::create(storage_, options);
    REQUIRE_OK(builder);
    REQUIRE_OK((*builder)->carry(contents_));
    place(**builder, 0, compressed);
    for (size_t state = 1; state < contents_.count(); ++state) {
      Snapshot snapshot;
      snapshot.id = std::to_string(state);
      snapshot.name = "s" + snapshot.id;
      snapshot.disk_size = options.size;
      snapshot.vm_state_size = vm_state_size;
      snapshot.extra_bytes = 24;
      REQUIRE_OK((*builder)->begin_snapshot(snapshot));
      place(**builder, state, compressed);
      REQUIRE_OK((*builder)->begin_vm_state());
      const uint64_t clusters = options.geometry().clusters_for(vm_state_size);
      for (uint64_t at = 0; at < clusters;) {
        const auto placed = (*builder)->place_data(ClusterIndex(at), clusters - at);
        REQUIRE_OK(placed);
        for (uint64_t i = 0; i < placed->clusters; ++i)
          write(placed->host + i * options.geometry().cluster_size(), 0xfe);
        at += placed->clusters;
      }
    }
    REQUIRE_OK((*builder)->finish());
    support::write_file(path(), storage_.bytes());
    support::run_ok({"qemu-img", "check", "-q", path()});
  }

  std::string path() const { return folder_ / "built.qcow2"; }
  std::vector<std::byte> bytes() const { return storage_.bytes(); }

 private:
  void place(Builder& builder, size_t state, bool compressed) {
    for (const auto& [cluster, content] : contents_.state(state)) {
      const auto first = contents_.first_with(state, ClusterIndex(cluster));
      if (content == 0 || *first != state) continue;
      if (compressed) {
        REQUIRE_OK(builder.place_compressed(ClusterIndex(cluster), 100));
        continue;
      }
      const auto placed = builder.place_data(ClusterIndex(cluster), 1);
      REQUIRE_OK(placed);
      write(placed->host, content);
    }
  }
  void write(HostOffset at, unsigned content) {
    const std::vector<std::byte> bytes(options_.geometry().cluster_size(),
                                       static_cast<std::byte>(content));
    REQUIRE_OK(storage_.write(at, bytes));
  }

  const support::TempDirectory folder_;
  const BuildOptions options_;
  Contents contents_;
  MemoryStorage storage_{"built"};
};

}  // namespace

namespace {

uint64_t l1_entry(const std::vector<std::byte>& file, HostOffset table, uint64_t index = 0) {
  return load_be64(&file[table.value() + index * 8]);
}

uint64_t l2_word(const std::vector<std::byte>& file, uint64_t l1, uint64_t index) {
  return load_be64(&file[(l1 & kEntryOffsetMask) + index * 8]);
}

}  // namespace

TEST_CASE("COPIED is set for what no snapshot shares, and equal tables are shared", "[builder]") {
  BuildOptions options;
  options.size = 4 << 20;
  const Built built(options, {{{0, 1}, {1, 2}, {5, 7}}, {{0, 1}, {1, 3}}, {{0, 1}, {1, 3}}});
  const auto file = built.bytes();
  MemoryStorage storage("built", file);
  const auto header = Header::read(storage);
  REQUIRE_OK(header);
  const auto snapshots = read_snapshot_table(storage, *header);
  REQUIRE_OK(snapshots);
  REQUIRE(snapshots->size() == 2);
  const uint64_t active = l1_entry(file, header->l1_table);
  const uint64_t first = l1_entry(file, snapshots->at(0).l1_table);
  const uint64_t second = l1_entry(file, snapshots->at(1).l1_table);
  CHECK((active & kEntryCopied) != 0);
  CHECK((first & kEntryCopied) == 0);
  CHECK(first == second);
  CHECK((first & kEntryOffsetMask) != (active & kEntryOffsetMask));
  CHECK((l2_word(file, active, 0) & kEntryCopied) == 0);
  CHECK((l2_word(file, active, 1) & kEntryCopied) != 0);
  CHECK((l2_word(file, active, 5) & kEntryCopied) != 0);
  CHECK(l2_word(file, first, 0) == l2_word(file, active, 0));
  CHECK((l2_word(file, first, 1) & kEntryCopied) == 0);
  CHECK(l2_word(file, first, 5) == 0);

  // What only one snapshot has is not marked either: the flag is for the active tables.
  const Built alone(options, {{{0, 1}}, {{0, 1}, {1, 3}}});
  const auto single = alone.bytes();
  MemoryStorage one("built", single);
  const auto only = read_snapshot_table(one, *Header::read(one));
  REQUIRE_OK(only);
  const uint64_t table = l1_entry(single, only->at(0).l1_table);
  CHECK((table & kEntryCopied) == 0);
  CHECK(l2_word(single, table, 1) != 0);
  CHECK((l2_word(single, table, 1) & kEntryCopied) == 0);

  // A table that all states share has no flags at all.
  const Built same(options, {{{3, 1}}, {{3, 1}}});
  const auto bytes = same.bytes();
  MemoryStorage copy("built", bytes);
  const uint64_t shared = l1_entry(bytes, Header::read(copy)->l1_table);
  CHECK((shared & kEntryCopied) == 0);
  CHECK((l2_word(bytes, shared, 3) & kEntryCopied) == 0);
}

TEST_CASE("L1 tables of snapshots can be longer than a range of refcounts", "[builder]") {
  // A block counts 64 clusters, and the L1 table has 200.
  BuildOptions options;
  options.cluster_bits = 9;
  options.refcount_order = 6;
  options.size = 400 << 20;
  for (unsigned clusters = 50; clusters < 70; ++clusters) {
    CAPTURE(clusters);
    Contents::State active;
    Contents::State other;
    for (unsigned i = 0; i < clusters; ++i) {
      active[i * 3] = i + 1;
      other[i * 3] = i % 2 == 0 ? i + 1 : i + 100;
    }
    const Built built(options, {active, other, active}, false, clusters * 700);
    CHECK(support::run_ok({"qemu-img", "snapshot", "-l", built.path()}).out.find("s2") !=
          std::string::npos);
  }
}

TEST_CASE("compressed clusters share a host cluster as far as refcounts allow", "[builder]") {
  for (const unsigned order : {2u, 3u, 4u}) {
    BuildOptions options;
    options.cluster_bits = 12;
    options.refcount_order = order;
    options.size = 8 << 20;
    Contents::State state;
    for (unsigned i = 0; i < 300; ++i) state[i] = 1;
    const Built built(options, {state, state, state, state, state}, true);
    // Streams of 100 bytes, with 5 references each: one fills half of a count of 4 bits, and about
    // 40 fill a cluster.
    CHECK(built.bytes().size() / 4096 < (order == 2 ? 330u : 30u));
    // The counts have space for one more reference to each stream.
    for (const char* const name : {"s4", "s1"})
      support::run_ok({"qemu-img", "snapshot", "-a", name, built.path()});
    support::run_ok({"qemu-img", "check", "-q", built.path()});
  }
}

TEST_CASE("a snapshot cannot place a cluster in a table of an earlier state", "[builder]") {
  BuildOptions options;
  options.size = 4 << 20;
  MemoryStorage storage("built");
  Contents contents(options.geometry(), {{{0, 1}}, {{0, 1}}});
  const auto builder = Builder::create(storage, options);
  REQUIRE_OK(builder);
  Snapshot snapshot;
  snapshot.disk_size = options.size;
  CHECK_FALSE((*builder)->begin_snapshot(snapshot));
  REQUIRE_OK((*builder)->carry(contents));
  REQUIRE_OK((*builder)->place_data(ClusterIndex(0), 1));
  REQUIRE_OK((*builder)->begin_snapshot(snapshot));
  CHECK_FALSE((*builder)->place_data(ClusterIndex(2), 1));
}
