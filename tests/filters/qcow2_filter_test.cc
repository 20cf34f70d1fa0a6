// Checks that the qcow2 filter shows what QEMU reads, with different layers below.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "qcow2/read/chain.h"
#include "tests/catch.h"
#include "tests/filters/filtered_server.h"
#include "tests/interop/bad_images.h"
#include "tests/interop/corner_images.h"
#include "tests/interop/export_comparison.h"
#include "tests/interop/image_maker.h"
#include "tests/interop/nbd_client.h"
#include "tests/interop/qemu.h"
#include "tests/support/http_server.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using interop::NbdClient;
using support::HttpServer;
using support::NbdServer;
using support::Random;
using support::RawFile;
using support::TempDirectory;
using Words = std::vector<std::string>;

const std::string kBackingRefused = "cannot open through the layer below";

// `beneath`: filters below ours, the plugin, and the parameters of all.
NbdServer serve(const Words& beneath) {
  Words words{"--filter=" + test::filter("qcow2")};
  words.insert(words.end(), beneath.begin(), beneath.end());
  return NbdServer::nbdkit(words);
}

// Returns the error that a client of the export gets.
std::string refusal(const NbdServer& server, const std::string& name) {
  try {
    const NbdClient client(server.socket(), name);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return {};
}

// An image with two snapshots, and the bytes of its three disks as QEMU reads them.
struct Sample {
  explicit Sample(const std::string& folder, const std::string& name = "disk")
      : path(fmt::format("{}/{}", folder, name)),
        now(path + ".now"),
        first(path + ".first"),
        second(path + ".second") {
    support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "8M"});
    write("write -q -P 1 0 3M", "write -q -c -P 2 4M 64k");
    snapshot("first", first);
    write("write -q -P 3 2M 1M", "write -q -z 100k 200k");
    snapshot("second", second);
    write("write -q -P 4 5M 100k", "discard -q 0 64k");
    interop::convert_to_raw(path, now);
  }

  void write(const std::string& one, const std::string& two) const {
    support::run_ok({"qemu-io", "-f", "qcow2", "-c", one, "-c", two, path});
  }
  void snapshot(const std::string& name, const std::string& raw) const {
    interop::convert_to_raw(path, raw);
    support::run_ok({"qemu-img", "snapshot", "-q", "-c", name, path});
  }

  std::string path;
  std::string now;
  std::string first;
  std::string second;
};

std::vector<std::byte> read_all(const NbdServer& server, const std::string& name) {
  const NbdClient client(server.socket(), name);
  return client.read(0, client.size());
}

// Returns how often the layer below received a read of the image's header.
unsigned header_reads(const std::string& log) {
  const auto bytes = support::read_file(log);
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  unsigned count = 0;
  // The fixed fields of the header.
  const std::string read = "offset=0x0 count=0x70";
  for (size_t at = 0; (at = text.find(read, at)) != std::string::npos; at += read.size()) ++count;
  return count;
}

// Reads pieces of the disk over a separate connection.
void read_pieces(const NbdServer& server, const std::string& raw, uint64_t seed, unsigned count,
                 std::string& complaint) {
  try {
    Random random(seed);
    const RawFile truth(raw);
    const NbdClient client(server.socket(), "");
    for (unsigned i = 0; i < count; ++i) {
      const uint64_t at = random.below(truth.size());
      const uint64_t length = std::min(random.between(1, 300'000), truth.size() - at);
      if (client.read(at, length) != truth.read(at, length))
        complaint = fmt::format("[{}, +{}) is not what it should be", at, length);
      client.block_status(at, length);
    }
  } catch (const std::exception& error) {
    complaint = error.what();
  }
}

// Reads from several connections at once. Returns an empty string if all bytes are right.
std::string read_at_once(const NbdServer& server, const std::string& raw, unsigned count) {
  constexpr unsigned kConnections = 6;
  std::vector<std::string> complaints(kConnections);
  std::vector<std::thread> threads;
  threads.reserve(kConnections);
  for (unsigned i = 0; i < kConnections; ++i)
    threads.emplace_back(
        [&, i] { read_pieces(server, raw, support::base_seed() + i, count, complaints[i]); });
  for (std::thread& it : threads) it.join();
  for (const std::string& it : complaints)
    if (!it.empty()) return it;
  return {};
}

}  // namespace

TEST_CASE("preallocated clusters that are holes below are zeros above", "[qcow2-filter]") {
  const TempDirectory folder;
  const std::string image = folder / "image.qcow2";
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, "1G"});
  support::run_ok({"qemu-io", "-c", "write -q -P 1 512M 1M", image});
  const auto data_bytes = [](const NbdServer& server) {
    const NbdClient client(server.socket(), "");
    uint64_t bytes = 0;
    for (const auto& it : client.block_status(0, client.size())) bytes += it.zero ? 0 : it.length;
    return bytes;
  };
  const uint64_t data = data_bytes(serve({"file", image}));
  CHECK(data >= 1 << 20);
  CHECK(data <= 2 << 20);
  // Without extents, everything may be data.
  CHECK(data_bytes(serve({"--filter=noextents", "file", image})) == uint64_t{1} << 30);
}

TEST_CASE("random images, over file and curl", "[qcow2-filter]") {
  const uint64_t count = support::iterations(14);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const TempDirectory folder;
    const interop::MadeImage made = interop::make_image(random, folder.path());
    INFO("VIRT_COMPACT_SEED=" << seed << " VIRT_COMPACT_ITERATIONS=1\n" << made.recipe);
    const auto chain = qcow2::Chain::open(made.path, {});
    REQUIRE(chain);

    const HttpServer web(made.path);
    const bool remote = random.chance(40);
    INFO((remote ? "over curl" : "over file"));
    Words beneath{"file", made.path};
    // nbdkit 1.32's curl plugin does not announce that its connections are consistent.
    if (remote)
      beneath = {"--filter=multi-conn", "curl", "url=http://localhost/disk.qcow2",
                 "unix-socket-path=" + web.socket(), "multi-conn-mode=unsafe"};
    if (random.chance(30)) beneath.push_back("qcow2-cache-size=64K");
    const NbdServer server = serve(beneath);
    const auto& header = chain->image()->header();
    if (!header.backing_file.empty() || header.has_data_file()) {
      CHECK(refusal(server, "") != "");
      CHECK_THAT(server.log(), Contains(kBackingRefused));
      continue;
    }
    const auto names = NbdClient::list(server.socket());
    CHECK(names.size() == made.disks.size());
    for (const interop::MadeDisk& disk : made.disks) {
      const std::string name = interop::export_name(disk);
      INFO("export: '" << name << "'");
      CHECK(std::find(names.begin(), names.end(), name) != names.end());
      const auto view = disk.snapshot.empty() ? Result<qcow2::Disk>(chain->disk())
                                              : chain->snapshot(disk.snapshot);
      REQUIRE(view);
      // A web server reports no holes.
      interop::check_export(server, name, *view, disk.raw, made.huge, folder / "scratch", random,
                            !remote);
    }
    CHECK((web.ranges() > 0) == remote);
  }
}

TEST_CASE("corner cases", "[qcow2-filter]") {
  const TempDirectory folder;
  Random random(support::base_seed());
  for (const auto& corner : interop::make_corner_images(folder.path())) {
    INFO(corner.name);
    const std::string raw = corner.path + ".raw";
    interop::convert_to_raw(corner.path, raw);
    const auto chain = qcow2::Chain::open(corner.path, {});
    REQUIRE(chain);
    const auto& header = chain->image()->header();
    const NbdServer server = serve({"file", corner.path});
    if (!header.backing_file.empty() || header.has_data_file())
      CHECK(refusal(server, "") != "");
    else
      interop::check_export(server, "", chain->disk(), raw, false, folder / "scratch", random);
  }
}

TEST_CASE("bad images are errors with a reason, and the server goes on", "[qcow2-filter]") {
  const TempDirectory folder;
  for (const interop::BadImage& bad : interop::make_bad_images(folder.path())) {
    // Ignores folders, sockets and the like, which the layer itself handles.
    std::error_code cannot;
    if (!fs::is_regular_file(bad.path, cannot)) continue;
    INFO(bad.name);
    NbdServer server = serve({"file", bad.path});
    std::string error;
    try {
      for (const std::string& name : NbdClient::list(server.socket())) read_all(server, name);
    } catch (const std::runtime_error& e) {
      error = e.what();
    }
    INFO("client: " << error << "\nserver: " << server.log());
    CHECK(error != "");
    CHECK(server.process().running());
    CHECK_THAT(server.log(), Contains("qcow2 filter: "));
    const bool refused = server.log().find(kBackingRefused) != std::string::npos;
    const bool other_format = !bad.format && bad.says.find("only qcow2 and raw") == 0;
    if (!refused && !other_format) CHECK_THAT(server.log(), Contains(bad.says));
    // The next client gets the same answer.
    CHECK_NOTHROW(NbdClient::list(server.socket()));
    CHECK(server.process().running());
  }
}

TEST_CASE("a backing file or a data file is refused, and the message says what to do",
          "[qcow2-filter]") {
  const TempDirectory folder;
  const std::string base = folder / "base.raw";
  const std::string top = folder / "top.qcow2";
  const std::string data = folder / "with-data.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "raw", base, "1M"});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
                   "data_file=" + (folder / "the-data.raw"), data, "1M"});
  const std::vector<std::pair<std::string, std::string>> cases{
      {top, "the image has the backing file '" + base + "'"},
      {data, "the image has the external data file '" + (folder / "the-data.raw") + "'"}};
  for (const auto& [path, says] : cases) {
    const NbdServer server = serve({"file", path});
    CHECK(refusal(server, "") != "");
    for (const std::string& word : {says, kBackingRefused, std::string("nbdkit qcow2 FILE"),
                                    std::string("virt-compact copy")})
      CHECK_THAT(server.log(), Contains(word));
  }
}

TEST_CASE("many connections read one image through one cache", "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  const NbdServer server =
      serve({"--filter=log", "--filter=delay", "file", sample.path, "delay-read=2ms",
             "logfile=" + (folder / "log"), "qcow2-cache-size=64K"});
  const NbdClient keeps_it_open(server.socket(), "");
  CHECK(keeps_it_open.can_multi_conn());
  CHECK(read_at_once(server, sample.now, 20) == "");
  CHECK(header_reads(folder / "log") == 1);
}

TEST_CASE("a layer without multi-conn gives each connection an image", "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  const NbdServer server = serve({"--filter=log", "--filter=multi-conn", "file", sample.path,
                                  "multi-conn-mode=disable", "logfile=" + (folder / "log")});
  const NbdClient one(server.socket(), "");
  const NbdClient two(server.socket(), "");
  CHECK_FALSE(one.can_multi_conn());
  CHECK(header_reads(folder / "log") == 2);
  CHECK(read_at_once(server, sample.now, 10) == "");
}

TEST_CASE("a layer that is not parallel gets one request at a time", "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  const NbdServer server =
      serve({"--filter=noparallel", "file", sample.path, "serialize=requests"});
  CHECK(read_at_once(server, sample.now, 10) == "");
}

TEST_CASE("a layer with large blocks is read in whole blocks", "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  // Shorter or unaligned requests would be errors.
  const NbdServer server =
      serve({"--filter=blocksize-policy", "file", sample.path, "blocksize-minimum=4096",
             "blocksize-preferred=4096", "blocksize-maximum=64K", "blocksize-error-policy=error"});
  CHECK((read_all(server, "") == support::read_file(sample.now)));
  CHECK((read_all(server, "snapshot:first") == support::read_file(sample.first)));
  CHECK(read_at_once(server, sample.now, 10) == "");
}

TEST_CASE("snapshots are exports", "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  const NbdServer server = serve({"file", sample.path});
  CHECK(NbdClient::list(server.socket()) == Words{"", "snapshot:first", "snapshot:second"});
  CHECK((read_all(server, "") == support::read_file(sample.now)));
  CHECK((read_all(server, "snapshot:first") == support::read_file(sample.first)));
  // Selects a snapshot by its ID.
  CHECK((read_all(server, "snapshot:2") == support::read_file(sample.second)));
  CHECK(refusal(server, "snapshot:third") != "");
  CHECK_THAT(server.log(), Contains("there is no snapshot 'third'"));

  const NbdServer one = serve({"file", sample.path, "qcow2-snapshot=first"});
  CHECK((read_all(one, "") == support::read_file(sample.first)));
  CHECK((read_all(one, "snapshot:second") == support::read_file(sample.second)));
}

TEST_CASE("export names of the layer are passed on", "[qcow2-filter]") {
  const TempDirectory folder;
  fs::create_directory(folder / "images");
  const Sample a(folder.path(), "a");
  fs::copy(a.path, folder / "images/a");
  // Also with only one file: nbdkit's file plugin crashes if it gets other calls while it lists
  // exports.
  NbdServer server = serve({"file", "dir=" + (folder / "images")});
  CHECK(NbdClient::list(server.socket()) == Words{"a"});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "images/b", "1M"});
  support::write_file(folder / "images/text", "no image");
  auto names = NbdClient::list(server.socket());
  std::sort(names.begin(), names.end());
  CHECK(names == Words{"a", "b", "text"});

  CHECK((read_all(server, "a") == support::read_file(a.now)));
  CHECK((read_all(server, "a/snapshot:second") == support::read_file(a.second)));
  CHECK(NbdClient(server.socket(), "b").size() == 1 << 20);
  CHECK(refusal(server, "b/snapshot:second") != "");
  CHECK_THAT(server.log(), Contains("the image below, 'b': there is no snapshot 'second'"));
  CHECK(refusal(server, "text") != "");
  CHECK_THAT(server.log(), Contains("the image below, 'text': not a QCOW2 image"));
  // A folder has no default export.
  CHECK(refusal(server, "snapshot:second") != "");
  CHECK(refusal(server, "a/snapshot:\x1b[31m") != "");
  CHECK_THAT(server.log(), Contains("\\x1b[31m"));
  CHECK(server.log().find('\x1b') == std::string::npos);
  CHECK(server.process().running());
}

TEST_CASE("an image that was replaced is opened again", "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  const NbdServer server = serve({"file", sample.path});
  const NbdClient old(server.socket(), "");
  const auto length = fs::file_size(sample.path);
  fs::remove(sample.path);
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", sample.path, "2M"});
  REQUIRE(fs::file_size(sample.path) != length);
  CHECK(NbdClient(server.socket(), "").size() == 2 << 20);
  // The removed file is still open here.
  CHECK((old.read(0, old.size()) == support::read_file(sample.now)));
}

TEST_CASE("an error of the layer below reaches the client, and later requests succeed",
          "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  const std::string trigger = folder / "trigger";
  const NbdServer server = serve({"--filter=error", "file", sample.path, "error-pread=ENOMEM",
                                  "error-pread-rate=100%", "error-pread-file=" + trigger});
  const NbdClient client(server.socket(), "");
  support::write_file(trigger, "");
  CHECK_THROWS_WITH(client.read(1 << 20, 4096), Contains("Cannot allocate memory"));
  CHECK_THAT(server.log(), Contains("qcow2 filter: ") && Contains(" of the image below: "));
  fs::remove(trigger);
  CHECK((client.read(1 << 20, 4096) == RawFile(sample.now).read(1 << 20, 4096)));
}

TEST_CASE("the filter allows no writes", "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  const auto before = support::read_file(sample.path);
  const NbdServer server = serve({"file", sample.path});
  CHECK(NbdClient(server.socket(), "").read_only());
  const auto written =
      support::run({"qemu-io", "-f", "raw", "-c", "write 0 64k", server.uri()}, {});
  CHECK_FALSE(written.ok());
  // A cache request does not change anything, either.
  support::run_ok({"qemu-io", "-r", "-f", "raw", "-c", "read -P 3 2M 1M", server.uri()});
  CHECK((support::read_file(sample.path) == before));
}

TEST_CASE("several connections to a web server", "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  const HttpServer web(sample.path);
  const NbdServer server =
      serve({"curl", "url=http://localhost/disk.qcow2", "unix-socket-path=" + web.socket()});
  CHECK(read_at_once(server, sample.now, 20) == "");
  CHECK((read_all(server, "snapshot:first") == support::read_file(sample.first)));
}

TEST_CASE("an image in memory", "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  const NbdServer server = serve({"data", "<" + sample.path});
  CHECK((read_all(server, "") == support::read_file(sample.now)));
}

TEST_CASE("an image in an image", "[qcow2-filter]") {
  const TempDirectory folder;
  const Sample sample(folder.path());
  const std::string outer = folder / "outer";
  support::run_ok({"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", sample.path, outer});
  // Both files have the same length: only the offsets differ.
  const auto length = fs::file_size(sample.path);
  REQUIRE(fs::file_size(outer) < length);
  support::resize_file(outer, length);
  const NbdServer server = serve({"--filter=" + test::filter("qcow2"), "file", outer});
  CHECK((read_all(server, "") == support::read_file(sample.now)));
}

TEST_CASE("parameters of the filter", "[qcow2-filter]") {
  if (support::nbdkit_command().size() > 1) {
    WARN("skipped: nbdkit does not end by itself with this sanitizer");
    return;
  }
  const auto refused = [](const std::string& parameter) {
    return test::try_filter("qcow2", {"null", parameter}).err;
  };
  CHECK_THAT(refused("qcow2-snapshot="), Contains("qcow2-snapshot= is empty"));
  CHECK_THAT(refused("qcow2-cache-size=1K"), Contains("at least 64K"));
  CHECK_THAT(refused("qcow2-cache-size=much"), Contains("qcow2-cache-size") || Contains("much"));
  CHECK(test::try_filter("qcow2", {"null", "qcow2-cache-size=64K"}).ok());
  // All other parameters are for the layers below.
  CHECK(test::try_filter("qcow2", {"null", "size=1M"}).ok());
  CHECK_FALSE(test::try_filter("qcow2", {"null", "nonsense=1"}).ok());
}
