// The chains of a domain's disks, and the change of a source.
#include "libvirt/disk_chain.h"

#include "tests/catch_text.h"

using namespace vc;

using libvirt::read_disk_chains;

namespace {

const std::string kRunning =
    "<domain><devices>"
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
    "<source file='/a/.disk.live' index='3'><encryption format='luks'/></source>"
    "<backingStore type='file' index='2'><format type='qcow2'/><source file='/a/disk&amp;.bak'/>"
    "<backingStore type='file'><format type='raw'/><source file='/a/base'/><backingStore/>"
    "</backingStore></backingStore>"
    "<mirror type='file' job='copy' ready='yes'><format type='qcow2'/><source file='/a/disk'/>"
    "<backingStore/></mirror>"
    "<target dev='vda' bus='virtio'/><readonly/><shareable/><transient/></disk>"
    "<disk type='network' device='lun'><driver type='raw'/><source protocol='nbd' name='x'/>"
    "<target dev='sdb'/></disk>"
    "<disk type='file'><source file='/b'><dataStore type='file'><source file='/data'/>"
    "</dataStore></source><backingStore/><target dev='vdc'/></disk>"
    "</devices></domain>";

}  // namespace

TEST_CASE("the chain and the block job of a disk", "[libvirt]") {
  const auto disks = read_disk_chains(kRunning, "text");
  REQUIRE(disks);
  REQUIRE(disks->size() == 3);
  const auto& first = (*disks)[0];
  CHECK(first.type == "file");
  CHECK(first.device == "disk");
  CHECK(first.target == "vda");
  CHECK(first.read_only);
  CHECK(first.shareable);
  CHECK(first.transient);
  CHECK(first.encrypted);
  CHECK_FALSE(first.divided);
  REQUIRE(first.files.size() == 3);
  CHECK(first.top() == "/a/.disk.live");
  CHECK(first.files[0].format == "qcow2");
  CHECK(first.files[1].path == "/a/disk&.bak");
  CHECK(first.files[1].format == "qcow2");
  CHECK(first.files[2].path == "/a/base");
  CHECK(first.files[2].format == "raw");
  REQUIRE(first.mirror);
  CHECK(first.mirror->path == "/a/disk");
  CHECK(first.mirror->job == "copy");
  CHECK(first.mirror->ready);

  const auto& second = (*disks)[1];
  CHECK(second.device == "lun");
  CHECK(second.top().empty());
  CHECK_FALSE(second.mirror);

  const auto& third = (*disks)[2];
  CHECK(third.divided);
  CHECK(third.files.size() == 1);
  CHECK(third.top() == "/b");

  CHECK(libvirt::find_target(*disks, "sdb") == &second);
  CHECK(libvirt::find_target(*disks, "vdz") == nullptr);
}

TEST_CASE("a new source replaces the path and the backing chain", "[libvirt]") {
  const auto changed = libvirt::with_source(kRunning, "text", "vda", "/a/it's <new>");
  REQUIRE(changed);
  CHECK_THAT(*changed, Catch::Contains("<source file='/a/it&apos;s &lt;new&gt;' index='3'>") ||
                           Catch::Contains("<source file='/a/it&apos;s &lt;new>' index='3'>"));
  CHECK(changed->find("/a/base") == std::string::npos);
  const auto disks = read_disk_chains(*changed, "text");
  REQUIRE(disks);
  CHECK((*disks)[0].files.size() == 1);
  CHECK((*disks)[0].top() == "/a/it's <new>");
  CHECK((*disks)[2].top() == "/b");
  // The element before the source.
  const auto other = libvirt::with_source(
      "<domain><devices><disk><backingStore><source file='/x'/></backingStore>"
      "<source file=\"/y\"/><target dev='vda'/></disk></devices></domain>",
      "text", "vda", "/z");
  REQUIRE(other);
  CHECK(*other ==
        "<domain><devices><disk><source file=\"/z\"/><target dev='vda'/></disk></devices>"
        "</domain>");
  CHECK_FALSE(libvirt::with_source(kRunning, "text", "sdb", "/z"));
  CHECK_FALSE(libvirt::with_source(kRunning, "text", "vdz", "/z"));
}
