// Runs command lines of qemu-img convert with virt-compact copy instead. Expects the same exit
// code, and a result that qemu-img calls identical.

#include <fmt/format.h>

#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

namespace {

using Words = std::vector<std::string>;

Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::string first_word_of(const std::string& path) {
  const auto out = support::run({"qemu-img", "info", path}).out;
  const size_t at = out.find("file format: ") + 13;
  return out.substr(at, out.find('\n', at) - at);
}

}  // namespace

TEST_CASE("command lines of qemu-img convert work on copy", "[convert]") {
  const support::TempDirectory folder;
  const std::string base = folder / "base.qcow2";
  const std::string top = folder / "top.qcow2";
  const std::string raw = folder / "disk.raw";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "8M"});
  support::run_ok({"qemu-io", "-c", "write -q -P 1 0 1M", base});
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top});
  support::run_ok({"qemu-io", "-c", "write -q -P 2 2M 1M", top});
  support::run_ok({"qemu-img", "snapshot", "-c", "first", top});
  support::run_ok({"qemu-io", "-c", "write -q -P 3 2M 1M", top});
  support::write_file(raw, std::string(1 << 20, 'x'));
  const std::string listed = "driver=qcow2,file.driver=file,file.filename=" + top;
  const std::string json =
      fmt::format(R"(json:{{"driver":"qcow2","file":{{"driver":"file","filename":"{}"}}}})", top);
  const struct {
    Words options;
    std::string source;
    std::string format;  // of the result
    bool works = true;
  } cases[] = {
      {{"-f", "qcow2", "-O", "qcow2"}, top, "qcow2"},
      {{"-p", "-O", "qcow2", "-t", "none", "-T", "none"}, top, "qcow2"},
      {{"-q", "-O", "raw", "-t", "writeback", "-T", "directsync"}, top, "raw"},
      {{"-O", "qcow2", "-c", "-m", "4", "-W"}, top, "qcow2"},
      {{"-O", "qcow2", "-c", "-o", "compat=0.10"}, top, "qcow2"},
      {{"-O", "qcow2", "-o", "compat=1.1,cluster_size=128k,lazy_refcounts=on"}, top, "qcow2"},
      {{"-O", "qcow2", "-o", "size=16M"}, top, "qcow2"},
      {{"-O", "qcow2", "-r", "100M"}, top, "qcow2"},
      {{"-O", "qcow2", "-l", "first"}, top, "qcow2"},
      {{"-O", "qcow2", "-l", "snapshot.name=first"}, top, "qcow2"},
      {{"-O", "qcow2", "-l", "snapshot.id=1"}, top, "qcow2"},
      {{"-O", "qcow2", "-l", "none"}, top, "qcow2", false},
      {{"-O", "raw", "-C"}, top, "raw"},
      {{"-O", "raw", "-S", "0"}, top, "raw"},
      {{"-O", "raw", "-S", "4k", "-U"}, top, "raw"},
      {{"-O", "qcow2", "-S", "64k"}, raw, "qcow2"},
      {{"-f", "raw", "-O", "qcow2"}, raw, "qcow2"},
      {{"-O", "qcow2"}, "file:" + top, "qcow2"},
      {{"-O", "qcow2"}, json, "qcow2"},
      {{"-O", "qcow2", "--image-opts"}, listed, "qcow2"},
      {{"-O", "qcow2", "--image-opts", "-f", "qcow2"}, listed, "qcow2", false},
      {{"-O", "qcow2", "-B", base, "-F", "qcow2"}, top, "qcow2"},
      {{"-O", "qcow2", "-o", "backing_file=" + base + ",backing_fmt=qcow2"}, top, "qcow2"},
      {{"-O", "qcow2", "--object", "secret,id=s,data=abc"}, top, "qcow2"},
      {{"-O", "qcow2", "-t", "foo"}, top, "qcow2", false},
      {{"-O", "qcow2", "-T", "foo"}, top, "qcow2", false},
      {{"-O", "qcow2", "-o", "bogus=1"}, top, "qcow2", false},
      {{"-O", "qcow2", "-r", "x"}, top, "qcow2", false},
      {{"-O", "bogus"}, top, "qcow2", false},
  };
  unsigned number = 0;
  for (const auto& it : cases) {
    const std::string theirs = folder / fmt::format("theirs-{}", ++number);
    const std::string ours = folder / fmt::format("ours-{}", number);
    INFO(support::shell_line(it.options) << " " << it.source);
    const auto expected =
        support::run(Words{"qemu-img", "convert"} + it.options + Words{it.source, theirs});
    const auto got = tool_test::run_tool(Words{"copy"} + it.options + Words{it.source, ours});
    INFO(expected.describe() << got.describe());
    CHECK((expected.exit_code == 0) == it.works);
    CHECK(got.exit_code == expected.exit_code);
    if (!it.works) continue;
    CHECK(first_word_of(ours) == it.format);
    CHECK(
        support::run({"qemu-img", "compare", "-f", it.format, "-F", it.format, theirs, ours}).ok());
    // With -S 0, everything is allocated.
    if (it.options.back() == "0")
      CHECK(support::run_ok({"stat", "-c", "%b", ours}).out ==
            support::run_ok({"stat", "-c", "%b", theirs}).out);
  }
}

TEST_CASE("copy refuses what it does not support, with advice", "[convert]") {
  const support::TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  const std::string there = folder / "there.raw";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"});
  support::write_file(there, std::string(1 << 20, 'x'));
  const auto before = support::read_file(there);
  const auto copy = [&](const Words& options) {
    return tool_test::run_tool(Words{"copy"} + options + Words{disk, there});
  };
  CHECK_THAT(copy({"-n", "-O", "raw"}).err, Catch::Contains("use --force to replace it"));
  CHECK_THAT(copy({"-n", "-O", "raw", "--force"}).err,
             Catch::Contains("-n writes into an existing DST"));
  CHECK_THAT(copy({"--bitmaps", "-O", "raw"}).err, Catch::Contains("only a new QCOW2 image"));
  CHECK(support::read_file(there) == before);
  CHECK_THAT(tool_test::run_tool({"copy", "-n", disk, folder / "new"}).err,
             Catch::Contains("-n needs a DST that exists"));
  const auto told = tool_test::run_tool(
      {"copy", "-C", "-o", "size=2M", "--target-is-zero", disk, folder / "copy.qcow2"});
  INFO(told.describe());
  CHECK(told.ok());
  CHECK_THAT(told.err, Catch::Contains("-C: copies are not offloaded") &&
                           Catch::Contains("change it with qemu-img resize"));
  // Tests -n with a server's disk, and a destination given by options.
  const auto served = tool_test::run_tool(
      {"copy", "-n", "--target-is-zero", "-O", "raw", disk, "[", "nbdkit", "memory", "1M", "]"});
  INFO(served.describe());
  CHECK(served.ok());
  // Zeros are not written to a disk that is said to be zero already.
  const auto into_there = [&](const Words& options) {
    return tool_test::run_tool(Words{"copy", "-n", "-O", "raw"} + options +
                               Words{disk, "[", "nbdkit", "file", there, "]"});
  };
  CHECK(into_there({"--target-is-zero"}).ok());
  CHECK(support::read_file(there) == before);
  CHECK(into_there({}).ok());
  CHECK(support::read_file(there) == std::vector<std::byte>(1 << 20));
  const auto by_options =
      tool_test::run_tool({"copy", "--target-image-opts", disk,
                           "driver=raw,file.filename=" + (folder / "by,,options")});
  INFO(by_options.describe());
  CHECK(by_options.ok());
  CHECK(support::run_ok({"stat", "-c", "%s", folder / "by,options"}).out == "1048576\n");
}

TEST_CASE("backing files may have json: names", "[convert]") {
  const support::TempDirectory folder;
  const std::string base = folder / "base.qcow2";
  const std::string raw = folder / "base.raw";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "1M"});
  support::run_ok({"qemu-io", "-c", "write -q -P 5 0 64k", base});
  support::run_ok({"qemu-img", "convert", "-O", "raw", base, raw});
  unsigned number = 0;
  for (const std::string& name :
       {fmt::format(R"(json:{{"driver":"qcow2","file":{{"driver":"file","filename":"{}"}}}})",
                    base),
        fmt::format(R"(json:{{"driver":"qcow2","file.driver":"file","file.filename":"{}"}})", base),
        fmt::format(R"(json:{{"driver":"qcow2","file.filename":"{}"}})", base),
        fmt::format(R"(json:{{"driver":"raw","file":{{"driver":"file","filename":"{}"}}}})", raw),
        fmt::format(R"(json:{{"driver":"file","filename":"{}"}})", raw), "file:" + base}) {
    const std::string over = folder / fmt::format("over-{}.qcow2", ++number);
    INFO(name);
    const std::string format = name.find("raw") != std::string::npos ? "raw" : "qcow2";
    support::run_ok(
        {"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", format, over, "1M"});
    const auto same = tool_test::run_tool({"compare", base, over});
    INFO(same.describe());
    CHECK(same.ok());
    CHECK(tool_test::run_tool({"copy", "-q", over, over + ".copy"}).ok());
    CHECK(support::run({"qemu-img", "compare", base, over + ".copy"}).ok());
    CHECK(tool_test::run_tool({"info", "--backing-chain", over}).ok());
  }
  for (const auto& [name, why] : std::vector<std::pair<std::string, std::string>>{
           {R"(json:{"driver":"nbd","host":"localhost"})", "driver 'nbd'"},
           {R"(json:{"driver":"qcow2","file":{"driver":"https","url":"https://x"}})",
            "only files are supported"},
           {fmt::format(R"(json:{{"driver":"raw","offset":"512","file.filename":"{}"}})", raw),
            "'offset' is not supported"},
           {"json:{", "is not a JSON object"}}) {
    const std::string over = folder / fmt::format("over-{}.qcow2", ++number);
    INFO(name);
    support::run_ok({"qemu-img", "create", "-q", "-u", "-f", "qcow2", over, "1M"});
    support::run({"qemu-img", "rebase", "-u", "-b", name, "-F", "raw", over});
    const auto outcome = tool_test::run_tool({"copy", over, folder / "none"});
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains(why));
  }
}
