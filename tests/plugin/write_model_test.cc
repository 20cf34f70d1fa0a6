// Compares the plugin in a real server with an array in memory.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include "tests/catch.h"
#include "tests/interop/nbd_client.h"
#include "tests/interop/qemu.h"
#include "tests/plugin/served_disk.h"
#include "tests/plugin/traffic.h"
#include "tests/plugin/writing_server.h"
#include "tests/plugin/written_image.h"
#include "tests/support/random.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::Random;
using support::TempDirectory;
using test::Bytes;
using test::Request;
using test::Traffic;
using test::WritingServer;
using test::WrittenImage;

namespace {

// The expected content. A trimmed byte is unchanged or zero. Once it was read as zero, it stays
// zero.
class Model {
 public:
  explicit Model(Bytes bytes) : bytes_(std::move(bytes)), trimmed_(bytes_.size()) {}

  const Bytes& bytes() const { return bytes_; }

  void write(uint64_t at, std::span<const std::byte> from) {
    std::copy(from.begin(), from.end(), bytes_.begin() + static_cast<ptrdiff_t>(at));
    std::fill_n(trimmed_.begin() + static_cast<ptrdiff_t>(at), from.size(), char{0});
  }
  void zero(uint64_t at, uint64_t length) { write(at, Bytes(length)); }
  void trim(uint64_t at, uint64_t length) {
    std::fill_n(trimmed_.begin() + static_cast<ptrdiff_t>(at), length, char{1});
  }

  // Returns what is wrong with bytes that were read. Empty: nothing.
  std::string look(uint64_t at, std::span<const std::byte> found) {
    if (std::memcmp(found.data(), bytes_.data() + at, found.size()) == 0) return {};
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i] == bytes_[at + i]) continue;
      if (trimmed_[at + i] == 0 || found[i] != std::byte{0})
        return fmt::format("byte {}: {} where {}{} was to be found", at + i,
                           std::to_integer<int>(found[i]), std::to_integer<int>(bytes_[at + i]),
                           trimmed_[at + i] != 0 ? " or 0" : "");
      bytes_[at + i] = std::byte{0};
    }
    return {};
  }

 private:
  Bytes bytes_;
  std::vector<char> trimmed_;
};

// Draws parameters that do not change what a client sees.
std::vector<std::string> draw_parameters(Random& random, const std::string& image) {
  std::vector<std::string> parameters{image};
  if (random.chance(20)) parameters.emplace_back("discard=ignore");
  if (random.chance(40)) {
    parameters.emplace_back("coalesce-discard=true");
    if (random.chance(50)) parameters.emplace_back("zero-fragments=true");
  }
  if (random.chance(40))
    parameters.emplace_back(random.chance(50) ? "detect-zeroes=on" : "detect-zeroes=unmap");
  if (random.chance(30)) parameters.emplace_back("cache-size=64K");
  return parameters;
}

Request::Kind draw_kind(Random& random) {
  static const std::vector<Request::Kind> kKinds{
      Request::Kind::kWrite, Request::Kind::kWrite, Request::Kind::kWrite, Request::Kind::kWrite,
      Request::Kind::kRead,  Request::Kind::kRead,  Request::Kind::kZero,  Request::Kind::kZero,
      Request::Kind::kTrim,  Request::Kind::kTrim,  Request::Kind::kCache, Request::Kind::kFlush};
  return random.pick(kKinds);
}

void settle(Model& model, const Request& done) {
  const bool fast = done.kind == Request::Kind::kZero && (done.flags & LIBNBD_CMD_FLAG_FAST_ZERO);
  INFO(done.describe());
  if (fast && done.error == ENOTSUP) return;
  REQUIRE(done.error == 0);
  switch (done.kind) {
    case Request::Kind::kRead:
      REQUIRE(model.look(done.at, done.bytes) == "");
      break;
    case Request::Kind::kWrite:
      model.write(done.at, done.bytes);
      break;
    case Request::Kind::kZero:
      model.zero(done.at, done.length);
      break;
    case Request::Kind::kTrim:
      model.trim(done.at, done.length);
      break;
    case Request::Kind::kFlush:
    case Request::Kind::kCache:
      break;
  }
}

void exchange(const std::string& socket, Model& model, uint64_t cluster_size, Random& random) {
  Traffic traffic(socket, 1 + random.below(4), 1 + random.below(8));
  const uint64_t requests = random.between(20, 400);
  for (uint64_t i = 0; i < requests; ++i) {
    if (const auto connection = traffic.idle(random)) {
      const Request::Kind kind = draw_kind(random);
      if (kind == Request::Kind::kFlush)
        traffic.submit(*connection, {});
      else if (auto request = draw_request(random, traffic, kind, cluster_size))
        traffic.submit(*connection, std::move(*request));
      if (random.chance(80)) continue;
    }
    for (const Request& done : traffic.wait()) settle(model, done);
  }
  while (!traffic.empty())
    for (const Request& done : traffic.wait()) settle(model, done);
  traffic.disconnect();
}

Bytes read_all(const interop::NbdClient& client) {
  constexpr uint64_t kPiece = 8 << 20;
  Bytes all;
  for (uint64_t at = 0; at < client.size(); at += kPiece) {
    const Bytes piece = client.read(at, std::min(kPiece, client.size() - at));
    all.insert(all.end(), piece.begin(), piece.end());
  }
  return all;
}

// Reads the disk and its snapshots through the server, while changes are in memory.
void look_through_server(const std::string& socket, Model& model,
                         const std::map<std::string, Bytes>& snapshots) {
  const interop::NbdClient client(socket, "");
  REQUIRE(model.look(0, read_all(client)) == "");
  uint64_t wrong_zeros = 0;
  for (const auto& it : client.block_status(0, client.size()))
    if (it.zero)
      for (uint64_t at = it.at; at < it.at + it.length; ++at)
        wrong_zeros += model.bytes()[at] != std::byte{0};
  REQUIRE(wrong_zeros == 0);
  for (const auto& [name, bytes] : snapshots) {
    const interop::NbdClient old(socket, "snapshot:" + name);
    CAPTURE(name);
    REQUIRE(old.read_only());
    REQUIRE((read_all(old) == bytes));
  }
}

void judge(const TempDirectory& folder, const WrittenImage& image, Model& model,
           const std::map<std::string, Bytes>& snapshots) {
  REQUIRE(interop::check_complaint(image.path) == "");
  REQUIRE(model.look(0, test::read_by_qemu(folder, image.path)) == "");
  for (const auto& [name, bytes] : snapshots) {
    CAPTURE(name);
    REQUIRE((test::read_by_qemu(folder, image.path, name) == bytes));
  }
}

// Makes changes that only QEMU can make: a snapshot, a compressed cluster.
void let_qemu_work(const WrittenImage& image, uint64_t round, Model& model,
                   std::map<std::string, Bytes>& snapshots, Random& random) {
  if (image.can_have_snapshots && random.chance(50)) {
    const std::string name = fmt::format("s{}", round);
    test::qemu_img({"snapshot", "-c", name, image.path});
    snapshots[name] = model.bytes();
  } else if (!snapshots.empty() && random.chance(20)) {
    test::qemu_img({"snapshot", "-d", snapshots.begin()->first, image.path});
    snapshots.erase(snapshots.begin());
  }
  const uint64_t cluster = image.cluster_size();
  if (image.size < cluster || !image.can_compress) return;
  const uint64_t at = random.below(image.size / cluster) * cluster;
  // QEMU refuses it if the cluster is allocated already.
  const auto done = support::run({"qemu-io", "-f", "qcow2", "-c",
                                  fmt::format("write -q -c -P 77 {} {}", at, cluster), image.path});
  if (done.ok()) model.write(at, Bytes(cluster, std::byte{77}));
}

}  // namespace

TEST_CASE("a served disk holds what several clients wrote at once", "[write-model]") {
  const uint64_t images = support::iterations(15);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const TempDirectory folder;
    const WrittenImage image = test::make_written_image(random, folder);
    CAPTURE(seed, image.kind);
    Model model(image.contents);
    std::map<std::string, Bytes> snapshots;
    const uint64_t rounds = random.between(1, 4);
    for (uint64_t round = 0; round < rounds; ++round) {
      let_qemu_work(image, round, model, snapshots, random);
      const auto parameters = draw_parameters(random, image.path);
      CAPTURE(round, support::shell_line(parameters));
      WritingServer server(parameters);
      exchange(server.socket(), model, image.cluster_size(), random);
      if (random.chance(50)) look_through_server(server.socket(), model, snapshots);
      if (random.chance(30)) exchange(server.socket(), model, image.cluster_size(), random);
      server.stop();
      INFO(server.log());
      judge(folder, image, model, snapshots);
    }
  }
}
