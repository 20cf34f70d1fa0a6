// Which policies are accepted, and what the errors of the others say.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/catch_text.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tool/nightly/disk_selection.h"
#include "tool/nightly/name_pattern.h"
#include "tool/nightly/path_pattern.h"
#include "tool/nightly/policy.h"
#include "tool/nightly/toml_value.h"

using namespace vc;

using Catch::Contains;
using tool::matches_pattern;
using tool::Policy;
using tool::read_policy;

namespace {

std::string error_of(const std::string& text) {
  const auto policy = read_policy(text, "p.toml");
  REQUIRE_FALSE(policy);
  return policy.error().message();
}

// A policy with one domain rule, which is not the first line.
std::string with_domain(const std::string& line) {
  return "\n[[domain]]\nname = \"*\"\n" + line + "\n";
}

}  // namespace

TEST_CASE("a policy has general settings, and rules that change them", "[nightly]") {
  const auto read = read_policy(R"(
connect = "qemu:///session"
state = "/srv/state"
window = "22:00-05:30"
window_end = "stop"
every_days = 3
minimum_gain = ["20%", "1G"]
rate_limit = "100M"
threads = 2
backup_days = 9

[[domain]]
name = ["web-*", "db?"]
except = "web-old"
target = "vda"
every_days = 0
compression = "zstd:3"
trim = "metadata"
drop = ["pagefile", "swap"]
keep_going = true
live = true
fstrim = false

[[domain]]
name = "*"

[[disk]]
path = ["/srv/a.qcow2", "/srv/b.img"]
format = "raw"
minimum_gain = "64k"
)",
                                "p.toml");
  REQUIRE(read);
  const Policy& policy = *read;
  CHECK(policy.connection == "qemu:///session");
  CHECK(policy.state == "/srv/state");
  REQUIRE(policy.window);
  CHECK(policy.window->text() == "22:00-05:30");
  CHECK(policy.stop_at_end);
  REQUIRE(policy.domains.size() == 2);
  const auto& web = policy.domains[0];
  CHECK(web.takes("web-1"));
  CHECK(web.takes("db2"));
  CHECK_FALSE(web.takes("db"));
  CHECK_FALSE(web.takes("web-old"));
  CHECK(web.settings.every_days == 0);
  CHECK(web.settings.gain.percent == 20.0);
  CHECK(web.settings.gain.bytes == uint64_t{1} << 30);
  REQUIRE(web.settings.compression);
  CHECK(web.settings.compression->level == 3);
  CHECK(web.settings.rate_limit == uint64_t{100} << 20);
  CHECK(web.settings.threads == 2);
  CHECK(web.settings.trim == optimize::Trimming::kMetadata);
  CHECK((web.settings.drop.pagefile && web.settings.drop.swap && !web.settings.drop.hiberfile));
  CHECK((web.settings.keep_going && web.settings.live && !web.settings.fstrim));
  CHECK(web.settings.backup_days == 9u);
  const auto& other = policy.domains[1];
  CHECK(other.settings.every_days == 3);
  CHECK_FALSE(other.settings.live);
  CHECK_FALSE(other.settings.compression);
  REQUIRE(policy.disks.size() == 1);
  CHECK(policy.disks[0].paths.size() == 2);
  CHECK(policy.disks[0].format == qcow2::Format::kRaw);
  CHECK(policy.disks[0].settings.gain.bytes == uint64_t{65536});
  CHECK(policy.disks[0].settings.gain.percent == 0);
}

TEST_CASE("a short policy has safe defaults", "[nightly]") {
  const auto policy = read_policy("[[domain]]\nname = \"*\"", "p.toml");
  REQUIRE(policy);
  CHECK(policy->state == "/var/lib/virt-compact/nightly");
  CHECK_FALSE(policy->window);
  CHECK_FALSE(policy->stop_at_end);
  const auto& settings = policy->domains[0].settings;
  CHECK(settings.every_days == 7);
  CHECK(settings.gain.said);
  CHECK(settings.gain.percent == 10.0);
  CHECK_FALSE(settings.gain.bytes);
  CHECK_FALSE(settings.live);
  CHECK(settings.backup);
  CHECK_FALSE(settings.backup_days);
}

TEST_CASE("an error of a policy names the line and what to write", "[nightly]") {
  CHECK_THAT(error_of("every_day = 1\n"),
             Contains("p.toml:1: 'every_day' is no key of the top of a policy: the keys are "
                      "every_days,"));
  CHECK_THAT(
      error_of(with_domain("path = \"/x\"")),
      Contains("p.toml:4: 'path' is no key of [[domain]]: the keys are") && Contains("except"));
  CHECK_THAT(error_of("[[disk]]\npath = \"/x\"\nlive2 = 1"),
             Contains("p.toml:3: 'live2' is no key of [[disk]]"));
  CHECK(error_of("\n\nevery_days = \"1\"") ==
        "p.toml:3: every_days: is a string: write a whole number");
  CHECK(error_of("every_days = 1.5") ==
        "p.toml:1: every_days: is a number or a date of another kind: write a whole number");
  CHECK(error_of("every_days = -1") ==
        "p.toml:1: every_days: is -1: write a whole number from 0 to 3650");
  CHECK(error_of("every_days = 9223372036854775807") ==
        "p.toml:1: every_days: is 9223372036854775807: write a whole number from 0 to 3650");
  CHECK(error_of(with_domain("live = \"yes\"")) ==
        "p.toml:4: live: is a string: write true or false");
  CHECK(error_of(with_domain("minimum_gain = \"10 %\"")) ==
        "p.toml:4: minimum_gain: '10 ' is not a whole number from 0 to 100");
  CHECK_THAT(error_of(with_domain("minimum_gain = [\"1%\", \"2%\"]")),
             Contains("p.toml:4: minimum_gain: has two limits of the same kind"));
  CHECK_THAT(error_of(with_domain("minimum_gain = 10")),
             Contains("p.toml:4: minimum_gain: is a whole number: write a string or an array"));
  CHECK_THAT(error_of(with_domain("compression = \"lzma\"")),
             Contains("p.toml:4: compression: 'lzma' is not one of: none, zstd"));
  CHECK_THAT(error_of(with_domain("rate_limit = \"0\"")), Contains("'0' is not a valid rate"));
  CHECK_THAT(error_of(with_domain("trim = \"all\"")), Contains("p.toml:4: trim: 'all' is not one"));
  CHECK_THAT(error_of(with_domain("drop = [\"temp\"]")), Contains("'temp' is not one of"));
  CHECK_THAT(error_of(with_domain("trim = \"none\"\ndrop = \"swap\"")),
             Contains("p.toml:2: drop has no effect with trim"));
  CHECK_THAT(error_of(with_domain("backup = false\nbackup_days = 3")),
             Contains("p.toml:2: backup = false keeps no old disk"));
  CHECK_THAT(error_of("window = \"1-5\""), Contains("'1-5' is not a time window, such as"));
  CHECK_THAT(error_of("window_end = \"kill\""), Contains("'kill' is not one of: finish, stop"));
  CHECK_THAT(error_of("state = \"state\""), Contains("'state' does not begin with a slash"));
  CHECK_THAT(error_of("[[disk]]\npath = [\"/a\", \"b\"]"),
             Contains("p.toml:2: path: 'b' does not begin with a slash"));
  CHECK_THAT(error_of("[[disk]]\npath = \"/srv/*/vm.qcow2\""),
             Contains("only after the last slash"));
  CHECK_THAT(error_of("[[disk]]\npath = \"/srv/\""), Contains("use '/srv/*.qcow2'"));
  CHECK_THAT(error_of("[[domain]]\nlive = true"), Contains("p.toml:1: [[domain]] has no name"));
  CHECK_THAT(error_of("\n[[disk]]"), Contains("p.toml:2: [[disk]] has no path"));
  CHECK_THAT(error_of("[domain]\nname = \"*\""),
             Contains("p.toml:1: domain: is a table: write [[domain]]"));
  CHECK_THAT(error_of("domain = 1"), Contains("domain: is a whole number: write [[domain]]"));
  CHECK_THAT(error_of("domain = [1]"), Contains("write [[domain]]"));
  CHECK_THAT(error_of("every_days = 1"), Contains("p.toml: names no disks: add [[domain]]"));
  CHECK_THAT(error_of(""), Contains("p.toml: names no disks"));
  CHECK_THAT(error_of(with_domain("name = \"\\u0000\"")), Contains("p.toml:4: "));
  CHECK_THAT(error_of("[[disk]]\npath = \"/a\\u0000b\""), Contains("has a null byte"));
}

TEST_CASE("what is not TOML is refused with its line", "[nightly]") {
  CHECK_THAT(error_of("every_days = 1\nwindow = 01:00-05:00"), Contains("p.toml:2: is not TOML: "));
  CHECK_THAT(error_of("x"), Contains("p.toml:1: is not TOML: "));
  CHECK_THAT(error_of("a = 1\na = 2"), Contains("p.toml:2: is not TOML: "));
  CHECK_THAT(error_of("a = \"\xff\xfe\""), Contains("p.toml:1: is not TOML: "));
}

TEST_CASE("a hostile policy takes neither memory nor stack", "[nightly]") {
  CHECK_THAT(error_of(std::string(tool::kMostTomlBytes + 1, ' ')),
             Contains("has more than 64 KiB"));
  std::string dots = "a";
  for (size_t i = 0; i < tool::kMostTomlDots; ++i) dots += ".a";
  CHECK_THAT(error_of(dots + " = 1"), Contains("is nested too deeply"));
  CHECK_THAT(error_of(dots + ".a = 1"), Contains("has more than 2000 dots"));
  const size_t deep = tool::kMostTomlBytes / 2 - 8;
  error_of("a = " + std::string(deep, '[') + std::string(deep, ']'));
  std::string tables;
  while (tables.size() + 6 <= tool::kMostTomlBytes) tables += "[[a]]\n";
  CHECK_THAT(error_of(tables), Contains("'a' is no key"));
}

TEST_CASE("patterns match whole names", "[nightly]") {
  CHECK(matches_pattern("*", ""));
  CHECK(matches_pattern("*", "web"));
  CHECK(matches_pattern("web", "web"));
  CHECK_FALSE(matches_pattern("web", "web1"));
  CHECK_FALSE(matches_pattern("web", "we"));
  CHECK(matches_pattern("w*b", "web"));
  CHECK(matches_pattern("w*b*", "wbb"));
  CHECK(matches_pattern("?eb", "web"));
  CHECK_FALSE(matches_pattern("?", ""));
  CHECK(matches_pattern("*a*b*c", "xxaxxbxxbxxc"));
  CHECK_FALSE(matches_pattern("*a*b*c", "xxaxxbxxbxx"));
  CHECK(matches_pattern("[x]", "[x]"));
  // Takes no exponential time.
  std::string pattern;
  for (int i = 0; i < 1000; ++i) pattern += "*a";
  CHECK_FALSE(matches_pattern(pattern + "b", std::string(20000, 'a')));
}

TEST_CASE("a pattern in a path stands for the files of its folder", "[nightly]") {
  const support::TempDirectory folder;
  for (const char* const name :
       {"b.qcow2", "a.qcow2", "c.img", ".hidden.qcow2", "a.qcow2.bak", "ab.qcow2"})
    support::write_file(folder / name, std::string());
  const auto found = [&](const std::string& pattern) {
    std::vector<std::string> names;
    for (const std::string& it : tool::paths_matching(folder / pattern)) {
      CHECK(it.starts_with(folder.path() + "/"));
      names.push_back(it.substr(folder.path().size() + 1));
    }
    return names;
  };
  using Names = std::vector<std::string>;
  CHECK(found("*.qcow2") == Names{"a.qcow2", "ab.qcow2", "b.qcow2"});
  CHECK(found("?.qcow2") == Names{"a.qcow2", "b.qcow2"});
  CHECK(found("*") == Names{"a.qcow2", "ab.qcow2", "b.qcow2", "c.img"});
  CHECK(found("*.bak") == Names{"a.qcow2.bak"});
  CHECK(found(".h*") == Names{".hidden.qcow2"});
  CHECK(found("x*") == Names{});
  CHECK(found("none/*") == Names{"none/*"});
  CHECK_FALSE(tool::is_path_pattern("/a*/b"));

  const auto policy = tool::read_policy(
      fmt::format("[[disk]]\npath = [\"{}\", \"{}\"]\n", folder / "?.qcow2", folder / "x*"),
      "p.toml");
  REQUIRE(policy);
  const auto disks = tool::select_disks(*policy, {});
  REQUIRE(disks.size() == 3);
  CHECK(disks[0].path == folder / "a.qcow2");
  CHECK(disks[1].refusal.empty());
  CHECK(disks[2].path == folder / "x*");
  CHECK(disks[2].refusal == "no file has such a name");
}

TEST_CASE("a policy that others can change is refused", "[nightly]") {
  const support::TempDirectory folder;
  const std::string path = folder / "p.toml";
  support::write_file(path, std::string("[[domain]]\nname = \"*\"\n"));
  REQUIRE(::chmod(path.c_str(), 0644) == 0);
  CHECK(tool::load_policy(path));
  for (const mode_t mode : {0664, 0646}) {
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    const auto refused = tool::load_policy(path);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message() ==
          path + ": other users can change it: remove the permission (chmod go-w " + path + ")");
  }
  REQUIRE(::chmod(path.c_str(), 0644) == 0);
  if (::geteuid() == 0) {
    REQUIRE(::chown(path.c_str(), 65534, 65534) == 0);
    const auto refused = tool::load_policy(path);
    REQUIRE_FALSE(refused);
    CHECK_THAT(refused.error().message(), Contains(": belongs to ") && Contains("chown root"));
  }
  CHECK_THAT(tool::load_policy(folder / "none").error().message(),
             Contains("No such file or directory"));
  CHECK_THAT(tool::load_policy(folder.path()).error().message(), Contains("is not a regular file"));
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  CHECK_THAT(tool::load_policy(folder / "fifo").error().message(),
             Contains("is not a regular file"));
}

TEST_CASE("a policy selects disks of domains, and says which are never optimized", "[nightly]") {
  const auto policy = read_policy(R"(
[[domain]]
name = "web"
target = "vd?"
[[domain]]
name = "*"
except = "no-*"
live = true
[[disk]]
path = "/srv/alone.qcow2"
)",
                                  "p.toml");
  REQUIRE(policy);
  const auto domain = [](const std::string& name, const std::string& disks) {
    return libvirt::KnownDomain{
        name,
        "uuid",
        "uri",
        libvirt::DomainState::kOff,
        true,
        libvirt::read_disk_chains("<domain><devices>" + disks + "</devices></domain>", name)};
  };
  const std::string plain =
      "<disk type='file' device='disk'><driver type='qcow2'/><source file='/srv/a.qcow2'/><target "
      "dev='vda'/></disk>";
  const std::vector<libvirt::KnownDomain> domains{
      domain("web", plain + "<disk type='file' device='disk'><driver type='qcow2'/>"
                            "<source file='/srv/b.qcow2'/><target dev='sda'/></disk>"),
      domain("no-backup", plain),
      domain("more",
             "<disk type='file' device='cdrom'><source file='/x.iso'/><target dev='sda'/></disk>"
             "<disk type='block' device='disk'><source dev='/dev/x'/><target dev='vda'/></disk>"
             "<disk type='file' device='disk'><driver type='vmdk'/><source file='/v'/><target "
             "dev='vdb'/></disk>"
             "<disk type='file' device='disk'><driver type='raw'/><source file='/r'/><target "
             "dev='vdc'/></disk>"
             "<disk type='file' device='disk'><driver type='qcow2'/><source file='/s'/><target "
             "dev='vdd'/><shareable/></disk>"
             "<disk type='file' device='disk'><driver type='qcow2'/><source file='/o'/><target "
             "dev='vde'/><readonly/></disk>"
             "<disk type='file' device='disk'><source file='/p'/><target dev='vdf'/></disk>")};
  const auto disks = tool::select_disks(*policy, domains);
  std::vector<std::string> found;
  for (const auto& it : disks) found.push_back(it.name() + ": " + it.refusal);
  CHECK(found ==
        std::vector<std::string>{
            "web: vda: /srv/a.qcow2: ",
            "more: vda: its type is block: only images in files are optimized",
            "more: vdb: /v: its format is vmdk: only qcow2 and raw are optimized",
            "more: vdc: /r: ", "more: vdd: /s: is shared with other domains",
            "more: vde: /o: is read-only, so it does not grow",
            "more: vdf: /p: its format is not in the definition of the domain: only qcow2 and raw "
            "are optimized",
            "/srv/alone.qcow2: "});
  // Its content never decides the format of a raw disk: the guest writes that.
  CHECK(disks[3].format == qcow2::Format::kRaw);
  CHECK_FALSE(disks[0].settings->live);
  CHECK(disks[3].settings->live);
}
