// Commands on images from untrusted sources.
#include <sys/stat.h>
#include <unistd.h>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;

namespace {

using Words = std::vector<std::string>;

void create(const Words& arguments) {
  Words command{"qemu-img", "create", "-q", "-f", "qcow2"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  run_ok(command);
}

// At exit, a sanitizer's leak search needs calls that are forbidden by then.
support::Outcome run_confined(const Words& arguments) {
  support::RunOptions options;
  options.environment = {"ASAN_OPTIONS=detect_leaks=0"};
  return run_tool(arguments, options);
}

// A small image that claims 16 TiB of data: each entry of 32 shared L2 tables maps the same
// cluster.
void make_endless(const std::string& path) {
  create({"-o", "cluster_size=2M", path, "16T"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 2M", path});
  auto bytes = support::read_file(path);
  const auto word = [&](size_t at) {
    uint64_t value = 0;
    for (size_t i = 0; i < 8; ++i) value = value << 8 | std::to_integer<uint64_t>(bytes[at + i]);
    return value;
  };
  const auto copy = [&](size_t from, size_t to) {
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(from), 8,
                bytes.begin() + static_cast<ptrdiff_t>(to));
  };
  const size_t l1 = word(40);
  const size_t l2 = word(l1) & 0x00fffffffffffe00;
  bytes.resize(std::max<size_t>(bytes.size(), l2 + (2 << 20)));
  for (size_t i = 1; i < 32; ++i) copy(l1, l1 + i * 8);
  for (size_t i = 1; i < (2 << 20) / 8; ++i) copy(l2, l2 + i * 8);
  support::write_file(path, bytes);
}

}  // namespace

TEST_CASE("no command of root opens a file that an image of another user names", "[untrusted]") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root");
    return;
  }
  const TempDirectory folder;
  REQUIRE(::chmod(folder.path().c_str(), 0755) == 0);
  const std::string secret = folder / "secret", image = folder / "image", split = folder / "split";
  support::write_file(secret, std::string(1 << 20, 's'));
  REQUIRE(::chmod(secret.c_str(), 0600) == 0);
  create({"-b", secret, "-F", "raw", image});
  create({"-o", "data_file=" + (folder / "data"), split, "1M"});
  REQUIRE(::chmod((folder / "data").c_str(), 0600) == 0);
  for (const auto& it : {image, split}) REQUIRE(::chown(it.c_str(), 65534, 65534) == 0);
  const std::string out = folder / "out";
  const std::vector<Words> commands = {{"copy", image, out},
                                       {"copy", split, out},
                                       {"copy", "--salvage", image, out},
                                       {"copy", "--salvage", split, out},
                                       {"copy", "--skip-free", image, out},
                                       {"map", image},
                                       {"map", split},
                                       {"measure", image},
                                       {"measure", split},
                                       {"space", image},
                                       {"space", split},
                                       {"compare", image, secret},
                                       {"compare", secret, split},
                                       {"info", "--backing-chain", image},
                                       {"bench", "-c", "1", image},
                                       {"bench", "-c", "1", "-w", "--yes", split},
                                       {"flatten", image, out},
                                       {"flatten", "--in-place", image},
                                       {"snapshot", "-c", "s", image},
                                       {"snapshot", "-c", "s", split},
                                       {"optimize", "--no-trim", image},
                                       {"trim", "--dry-run", image}};
  for (const Words& command : commands) {
    const auto refused = run_tool(command);
    CAPTURE(refused.describe());
    CHECK(refused.exit_code != 0);
    const bool of_split = std::find(command.begin(), command.end(), split) != command.end();
    CHECK_THAT(refused.err, Contains("(uid 65534) owns " + (of_split ? split : image)));
    CHECK_THAT(refused.err, Contains(of_split ? "--data-file=follow" : "--backing=follow"));
    CHECK(::access(out.c_str(), F_OK) != 0);
  }
  CHECK(run_tool({"copy", "-q", "--backing=follow", image, out}).ok());
  CHECK(run_tool({"compare", "-q", out, secret}).ok());
  CHECK(run_tool({"map", "-q", "--data-file=follow", split}).ok());
}

TEST_CASE("an overlay whose backing file is lost can be read", "[untrusted]") {
  const TempDirectory folder;
  const std::string top = folder / "top", out = folder / "out";
  support::write_file(folder / "gone", std::string(1 << 20, 'x'));
  create({"-b", "gone", "-F", "raw", top, "1M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 64k 64k", top});
  REQUIRE(::unlink((folder / "gone").c_str()) == 0);
  const auto refused = run_tool({"copy", top, out});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Contains("gone: No such file") && Contains("--backing=none"));
  const auto done = run_tool({"copy", "--backing=none", top, out});
  CAPTURE(done.describe());
  CHECK(done.ok());
  CHECK_THAT(done.err, Contains("without its backing file 'gone'") && Contains("reads as zeros"));
  std::string expected(1 << 20, '\0');
  std::fill_n(expected.begin() + (64 << 10), 64 << 10, '\5');
  support::write_file(folder / "raw", expected);
  CHECK(run_tool({"compare", "-q", "-f", "qcow2", "-F", "raw", out, folder / "raw"}).ok());
  CHECK(run_tool({"compare", "-q", "--backing=none", top, folder / "raw"}).ok());
  // A missing backing file is not replaced by writes.
  CHECK_THAT(run_tool({"bench", "-c", "1", "-w", "--yes", "--backing=none", top}).err,
             Contains("can only be read"));
  CHECK_THAT(run_tool({"flatten", "--in-place", "--backing=none", top}).err,
             Contains("'none' is not one of: owner, follow, deny"));
}

TEST_CASE("untrusted images that name other files are refused", "[untrusted]") {
  const TempDirectory folder;
  create({folder / "base", "1M"});
  const std::string top = folder / "top", split = folder / "split", out = folder / "out";
  create({"-b", "base", "-F", "qcow2", top});
  create({"-o", "data_file=" + (folder / "data"), split, "1M"});
  const std::string json = folder / "json";
  create({"-b", "json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}", "-F", "raw", "-u", json,
          "1M"});
  const std::string secret = folder / "luks";
  create({secret, "1M"});
  auto bytes = support::read_file(secret);
  bytes[35] = std::byte{2};  // crypt_method
  support::write_file(secret, bytes);
  for (const std::string& image : {top, split, json, secret})
    for (const Words& command : std::vector<Words>{{"info"},
                                                   {"check"},
                                                   {"map"},
                                                   {"measure"},
                                                   {"space"},
                                                   {"compare", folder / "base"},
                                                   {"copy"}}) {
      Words words = command;
      words.emplace_back("--untrusted");
      words.push_back(image);
      if (command.front() == "copy") words.push_back(out);
      const auto refused = run_confined(words);
      CAPTURE(refused.describe());
      CHECK(refused.exit_code != 0);
      CHECK(refused.signal == 0);
      CHECK_THAT(refused.err, Contains(image == secret ? "encrypt" : "not allowed"));
      CHECK(::access(out.c_str(), F_OK) != 0);
    }
  CHECK_THAT(run_tool({"map", "--untrusted", "--backing=follow", top}).err,
             Contains("opens no file that the image names"));
  CHECK_THAT(run_tool({"map", "--limits", "size=1", top}).err, Contains("needs --untrusted"));
  CHECK_THAT(run_tool({"map", "--untrusted", "nbd://localhost/"}).err, Contains("image files"));
  CHECK_THAT(run_tool({"check", "--untrusted", "-r", "all", top}).err,
             Contains("allows no repair"));
}

TEST_CASE("valid images can be read by a confined process", "[untrusted]") {
  const TempDirectory folder;
  const std::string image = folder / "image", out = folder / "out", raw = folder / "raw";
  create({image, "20M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 1M 9M", image});
  run_ok({"qemu-img", "snapshot", "-c", "s", image});
  run_ok({"qemu-img", "convert", "-O", "raw", image, raw});
  const std::vector<Words> commands = {{"info", image},
                                       {"check", image},
                                       {"map", image},
                                       {"map", "--svg", folder / "svg", image},
                                       {"measure", image},
                                       {"measure", "-c", image},
                                       {"space", image},
                                       {"compare", image, raw},
                                       {"copy", "-c", "--verify", image, out},
                                       {"copy", "--force", "--verify", "-O", "raw", image, out},
                                       {"copy", "--snapshot=s", image, folder / "other"},
                                       {"copy", image, "null:"}};
  for (Words command : commands) {
    command.insert(command.end(), {"-v", "--untrusted"});
    const auto done = run_confined(command);
    CAPTURE(done.describe());
    CHECK(done.ok());
    CHECK_THAT(done.err, Contains("Landlock"));
  }
  CHECK(run_tool({"compare", "-q", out, raw}).ok());
  CHECK(run_tool({"compare", "-q", folder / "other", raw}).ok());
  const auto piped = tool_test::run_script(
      R"(ASAN_OPTIONS=detect_leaks=0 "$VIRT_COMPACT" copy -q -c --untrusted "$1" - > "$2")",
      {image, folder / "piped"});
  CHECK(piped.ok());
  CHECK(run_tool({"compare", "-q", folder / "piped", raw}).ok());
}

TEST_CASE("an image that maps too much is refused, or ends at the time limit", "[untrusted]") {
  const TempDirectory folder;
  const std::string image = folder / "image";
  make_endless(image);
  for (const Words& command : std::vector<Words>{
           {"map"}, {"measure", "-O", "qcow2"}, {"compare", image}, {"copy", "-O", "raw"}}) {
    Words words = command;
    words.emplace_back("--untrusted");
    words.push_back(image);
    if (command.front() == "copy") words.push_back(folder / "out");
    const auto refused = run_confined(words);
    CAPTURE(refused.describe());
    CHECK(refused.exit_code != 0);
    CHECK_THAT(refused.err, Contains("used by several L1 entries"));
  }
  // A disk that takes long, although no limit of its size is exceeded.
  const std::string slow = folder / "slow";
  create({slow, "1G"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 5 0 64M", slow});
  const auto late = run_confined(
      {"copy", "--untrusted", "--limits", "time=1", "--rate-limit", "1M", slow, folder / "out"});
  CAPTURE(late.describe());
  CHECK(late.exit_code == 1);
  CHECK_THAT(late.err, Contains("takes longer than 1 s"));
  CHECK(::access((folder / "out").c_str(), F_OK) != 0);
}
