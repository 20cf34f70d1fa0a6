#include <fmt/format.h>

#include "libvirt/tuning.h"

#include "tests/catch_text.h"
#include "tests/support/random.h"

using namespace vc;

using libvirt::Settings;
using libvirt::Tuning;

namespace {

std::string in_domain(const std::string& devices) {
  return "<domain><devices>" + devices + "</devices></domain>";
}

std::string disk(const std::string& driver, const std::string& rest = "<target dev='vda'/>") {
  return in_domain("<disk type='file' device='disk'>" + driver + rest + "</disk>");
}

Tuning tuned(const std::string& text, const Settings& settings = {}) {
  auto result = libvirt::tune(text, "x", settings);
  INFO(text);
  if (!result) FAIL(result.error().message());
  return *result;
}

constexpr const char* kWanted = "cache='none' io='native' discard='unmap' detect_zeroes='unmap'";

}  // namespace

TEST_CASE("missing attributes are added, wrong values are changed", "[tuning]") {
  CHECK(tuned(disk("<driver name='qemu' type='qcow2'/>")).text ==
        disk(std::string("<driver name='qemu' type='qcow2' ") + kWanted + "/>"));
  CHECK(tuned(disk("<driver type=\"qcow2\" cache=\"writeback\" iothread=\"1\"  ><x/></driver>"))
            .text ==
        disk("<driver type=\"qcow2\" cache=\"none\" iothread=\"1\" io=\"native\" discard=\"unmap\" "
             "detect_zeroes=\"unmap\"  ><x/></driver>"));
  const auto tuning =
      tuned(disk("<driver io='threads' type='&#113;cow2' discard='unmap'\n cache='n&#111;ne'/>"));
  CHECK(tuning.text == disk("<driver io='native' type='&#113;cow2' discard='unmap'\n "
                            "cache='n&#111;ne' detect_zeroes='unmap'/>"));
  REQUIRE(tuning.disks.size() == 1);
  REQUIRE(tuning.disks[0].changes.size() == 2);
  CHECK(tuning.disks[0].changes[0].attribute == "io");
  CHECK(tuning.disks[0].changes[0].from == "threads");
  CHECK(tuning.disks[0].changes[0].to == "native");
}

TEST_CASE("disks that are not QCOW2 are not changed, with a reason", "[tuning]") {
  const std::string driver = "<driver name='qemu' type='qcow2'/>";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {in_domain("<disk device='cdrom'>" + driver + "</disk>"), "is a cdrom"},
      {in_domain("<disk device='floppy'>" + driver + "</disk>"), "is a floppy"},
      {disk("<driver name='qemu' type='raw'/>"), "is raw"},
      {disk("<driver name='qemu'/>"), "names no format, so libvirt treats it as raw"},
      {disk(""), "has no <driver>, so libvirt treats it as raw"},
      {disk(driver, "<readonly/>"), "is read-only"},
      {disk(driver + driver), "has several <driver> elements"},
      {in_domain("<disk><mirror>" + driver + "</mirror></disk>"),
       "has no <driver>, so libvirt treats it as raw"},
  };
  for (const auto& [text, why] : cases) {
    const auto tuning = tuned(text);
    CHECK(tuning.text == text);
    REQUIRE(tuning.disks.size() == 1);
    CHECK(tuning.disks[0].skipped == why);
  }
  // None of these is a disk of the domain.
  for (const std::string& text :
       {"<domain><disk>" + driver + "</disk></domain>",
        in_domain("<x><disk>" + driver + "</disk></x>"),
        in_domain("<disk xmlns='elsewhere'>" + driver + "</disk>"),
        in_domain("<!--<disk>" + driver + "</disk>--><![CDATA[<disk>" + driver + "</disk>]]>")}) {
    const auto tuning = tuned(text);
    CHECK(tuning.text == text);
    CHECK(tuning.disks.empty());
  }
  CHECK_FALSE(libvirt::tune("<network/>", "x", {}));
  CHECK_FALSE(libvirt::tune("<domain xmlns='elsewhere'/>", "x", {}));
}

TEST_CASE("other settings, or none, can be requested", "[tuning]") {
  Settings settings;
  settings.cache = "directsync";
  settings.io.reset();
  settings.detect_zeroes = "on";
  CHECK(tuned(disk("<driver type='qcow2' io='threads'/>"), settings).text ==
        disk("<driver type='qcow2' io='threads' cache='directsync' discard='unmap' "
             "detect_zeroes='on'/>"));
  settings.targets = {"vdb"};
  const std::string two = in_domain(
      "<disk><driver type='qcow2'/><target dev='vda'/></disk>"
      "<disk><driver type='qcow2' cache='none'/><target dev='vdb'/></disk>");
  const auto tuning = tuned(two, settings);
  CHECK(tuning.disks[0].skipped == "was not selected");
  CHECK(tuning.disks[1].changes.size() == 3);
  settings.targets = {"vdc"};
  CHECK(libvirt::tune(two, "x", settings).error().message() ==
        "x: there is no disk with target 'vdc'");
}

TEST_CASE("combinations with which QEMU does not start are refused", "[tuning]") {
  Settings settings;
  settings.cache = "writeback";
  CHECK(libvirt::check(settings).error().message() ==
        "io='native' needs cache='none' or 'directsync', not 'writeback'");
  settings.cache.reset();
  CHECK(libvirt::check(settings));
  // Whether settings conflict depends on existing attributes.
  CHECK(libvirt::tune(disk("<driver type='qcow2' cache='unsafe'/>"), "x", settings)
            .error()
            .message() ==
        "x: line 1: disk vda: io='native' needs cache='none' or 'directsync', not 'unsafe'");
  CHECK_FALSE(libvirt::tune(disk("<driver type='qcow2'/>"), "x", settings));
  CHECK(libvirt::tune(disk("<driver type='qcow2' cache='none'/>"), "x", settings));
  settings = {};
  settings.discard = "maybe";
  CHECK(libvirt::check(settings).error().message() ==
        "discard='maybe' is not a value that libvirt accepts");
}

TEST_CASE("disks on buses without good trim support get advice", "[tuning]") {
  const auto advice = [](const std::string& target, const std::string& controller = "") {
    const auto tuning =
        tuned(in_domain(controller + "<disk><driver type='qcow2'/>" + target + "</disk>"));
    return tuning.disks[0].advice.empty() ? std::string() : tuning.disks[0].advice[0];
  };
  for (const char* const bus : {"ide", "sata", "usb"})
    CHECK_THAT(advice(fmt::format("<target bus='{}'/>", bus)),
               Catch::StartsWith(fmt::format("bus='{}'", bus)) && Catch::Contains("virtio-scsi"));
  CHECK_THAT(advice("<target bus='virtio'/>"), Catch::Contains("QEMU 4.0 and Linux 5.0"));
  const std::string scsi = "<target bus='scsi'/>";
  CHECK(advice(scsi, "<controller type='scsi' index='0' model='virtio-scsi'/>").empty());
  CHECK_THAT(advice(scsi, "<controller type='scsi' index='0' model='lsilogic'/>"),
             Catch::StartsWith("its SCSI controller is 'lsilogic'"));
  CHECK_THAT(advice(scsi, "<controller type='scsi'/>"), Catch::Contains("chosen by libvirt"));
  const std::string on_1 = scsi + "<address type='drive' controller='1'/>";
  const std::string both =
      "<controller type='scsi' index='0'/><controller type='scsi' index='1' model='virtio-scsi'/>";
  CHECK(advice(on_1, both).empty());
}

namespace {

// Returns a definition of a guest: with `about`, and with a QCOW2 disk whose settings are right.
std::string guest(const std::string& about, const std::string& rest,
                  const std::string& bus = "scsi") {
  return "<domain>" + about + "<devices>\n  <disk>\n    <driver type='qcow2' " + kWanted + "/>\n" +
         rest + "    <target dev='sda' bus='" + bus + "'/>\n  </disk></devices></domain>";
}

constexpr const char* kBlockio = "    <blockio discard_granularity='65536'/>\n";

// Adds the <blockio> before the <driver>.
std::string with_blockio(const std::string& text) {
  std::string result = text;
  return result.insert(result.find("    <driver"), kBlockio);
}

std::string osinfo(const std::string& id) {
  return "<metadata><libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/"
         "domain/1.0'><libosinfo:os id='" +
         id + "'/></libosinfo:libosinfo></metadata>";
}

}  // namespace

TEST_CASE("Windows gets a granularity that suits its ReTrim", "[tuning]") {
  const std::string windows = GENERATE(
      osinfo("http://microsoft.com/win/10"), std::string("<features><hyperv/></features>"),
      std::string("<clock offset='localtime'/>"),
      std::string("<clock offset='utc'><timer name='hypervclock' present='yes'/></clock>"));
  CAPTURE(windows);
  for (const char* const bus : {"scsi", "virtio"}) {
    const std::string before = guest(windows, "", bus);
    const auto tuning = tuned(before);
    CHECK(tuning.windows);
    CHECK(tuning.text == with_blockio(before));
    REQUIRE(tuning.changes() == 1);
    CHECK(tuning.disks[0].changes[0].attribute == "discard_granularity");
    CHECK(tuned(tuning.text).changes() == 0);
  }
  // An IDE disk does not use this granularity.
  CHECK(tuned(guest(windows, "", "sata")).changes() == 0);
  // Existing settings are kept, and so are other attributes.
  CHECK(tuned(guest(windows, "<blockio discard_granularity='4096'/>")).changes() == 0);
  CHECK(tuned(guest(windows, "<blockio logical_block_size='4096'/>")).text ==
        guest(windows, "<blockio logical_block_size='4096' discard_granularity='65536'/>"));
  Settings settings;
  settings.discard = "ignore";
  settings.detect_zeroes = "off";
  CHECK_THAT(tuned(guest(windows, ""), settings).text, !Catch::Contains("granularity"));
  settings = {};
  settings.keep_granularity = true;
  CHECK(tuned(guest(windows, ""), settings).changes() == 0);
}

TEST_CASE("other guests get a granularity only on request", "[tuning]") {
  const std::string other =
      GENERATE(osinfo("http://debian.org/debian/12") + "<features><hyperv/></features>",
               std::string("<clock offset='utc'><timer name='hypervclock' present='no'/></clock>"),
               std::string("<x:features xmlns:x='u'><hyperv/></x:features>"), std::string());
  CAPTURE(other);
  CHECK_FALSE(tuned(guest(other, "")).windows);
  CHECK(tuned(guest(other, "")).changes() == 0);
  Settings settings;
  settings.discard_granularity = 2 << 20;
  CHECK_THAT(tuned(guest(other, ""), settings).text,
             Catch::Contains("<blockio discard_granularity='2097152'/>"));
  CHECK(tuned(guest(other, "<blockio discard_granularity='4096'/>"), settings).text ==
        guest(other, "<blockio discard_granularity='2097152'/>"));
  settings.discard_granularity = 512;
  const auto wrong =
      libvirt::tune(guest(other, "<blockio logical_block_size='4096'/>"), "x", settings);
  REQUIRE_FALSE(wrong);
  CHECK_THAT(wrong.error().message(), Catch::Contains("not a multiple of its logical_block_size"));
}

namespace {

// A definition with misleading text around the disks, and the expected result.
struct Made {
  std::string before;
  std::string after;
};

class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) {}

  Made make() {
    same(random_.chance(30) ? "<?xml version='1.0' encoding='utf-8'?>\r\n" : "");
    same("<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>");
    noise();
    same("<devices>");
    for (uint64_t i = random_.below(6); i > 0; --i) {
      noise();
      add_disk();
    }
    noise();
    same("</devices>");
    noise();
    same("<qemu:commandline><qemu:arg value='-set&#10;&quot;'/></qemu:commandline></domain>");
    same(random_.chance(50) ? "\n" : "");
    return made_;
  }

 private:
  void same(const std::string& text) {
    made_.before += text;
    made_.after += text;
  }
  void noise() {
    static const std::vector<std::string> kNoise = {"\n  ",
                                                    "\t",
                                                    "<!-- <disk><driver type='qcow2'/></disk> -->",
                                                    "<metadata>&lt;\xc3\xa9</metadata>",
                                                    "<![CDATA[<driver type='qcow2'>]]>",
                                                    "<?pi <disk> ?>",
                                                    "\r\n",
                                                    "&amp;",
                                                    "<a b='>'/>",
                                                    "<app:x xmlns:app=\"u\"><disk/></app:x>"};
    for (uint64_t i = random_.below(4); i > 0; --i) same(random_.pick(kNoise));
  }
  void add_disk() {
    const bool qcow2 = random_.chance(70);
    same(random_.chance(50) ? "<disk type='file' device='disk'>" : "<disk type=\"block\" >");
    noise();
    const char quote = random_.chance(50) ? '\'' : '"';
    const auto attribute = [&](const std::string& name, const std::string& value) {
      return (random_.chance(80) ? " " : "\n\t ") + name + (random_.chance(80) ? "=" : " = ") +
             quote + value + quote;
    };
    same("<driver");
    same(attribute("name", "qemu"));
    same(attribute("type", qcow2 ? "qcow2" : "raw"));
    std::string missing;
    for (const auto& [name, value] :
         std::vector<std::pair<std::string, std::string>>{{"cache", "none"},
                                                          {"io", "native"},
                                                          {"discard", "unmap"},
                                                          {"detect_zeroes", "unmap"}}) {
      if (random_.chance(40)) {
        missing += " " + name + "=" + quote + value + quote;
      } else if (random_.chance(50)) {
        same(attribute(name, value));
      } else {
        const std::string front = attribute(name, "");
        const std::string start = front.substr(0, front.size() - 1);
        const std::string wrong = random_.pick<std::string>({"x", "", "a&gt;b", "two\nlines"});
        made_.before += start + wrong + quote;
        made_.after += start + (qcow2 ? value : wrong) + quote;
      }
    }
    if (qcow2) made_.after += missing;
    same(random_.chance(20) ? "  " : "");
    if (random_.chance(20))
      same("><metadata_cache/></driver >");
    else
      same("/>");
    noise();
    same("<target dev='vda' bus='virtio'/></disk>");
  }

  support::Random random_;
  Made made_;
};

}  // namespace

TEST_CASE("random definitions change only in the right places, and only once", "[tuning]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(500); ++i) {
    CAPTURE(seed + i);
    const Made made = Maker(seed + i).make();
    const auto tuning = tuned(made.before);
    CHECK(tuning.text == made.after);
    CHECK((tuning.changes() == 0) == (made.before == made.after));
    const auto again = tuned(made.after);
    CHECK(again.changes() == 0);
    CHECK(again.text == made.after);
  }
}
