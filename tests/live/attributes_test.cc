// The owner and the mode of the files that a live run makes.
#include "live/attributes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "storage/descriptor.h"
#include "tests/catch_text.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using live::Owner;

TEST_CASE("libvirt's form of an owner", "[live]") {
  Owner owner;
  CHECK(live::parse_owner("+107:+108", owner));
  CHECK(owner.user == 107);
  CHECK(owner.group == 108);
  for (const char* text : {"", "107:108", "+107", "+107:", "+107:+", "+107:+108x", "+-1:+1",
                           "+4294967296:+1", "root:root", "+1 :+1"}) {
    CAPTURE(text);
    CHECK_FALSE(live::parse_owner(text, owner));
  }
}

TEST_CASE("a new file gets the rights that libvirt remembers for the disk", "[live]") {
  const support::TempDirectory folder;
  support::write_file(folder / "disk", std::string("x"));
  support::write_file(folder / "fresh", std::string("x"));
  const Descriptor disk(::open((folder / "disk").c_str(), O_RDONLY | O_CLOEXEC));
  const Descriptor fresh(::open((folder / "fresh").c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(::fchmod(disk.get(), 0640) == 0);
  const auto none = live::remembered_owner(disk.get(), "disk");
  REQUIRE(none);
  CHECK(none->user == ::geteuid());
  if (::geteuid() != 0) return;

  // As libvirt sets them for a domain that runs.
  const std::string remembered = "+12:+13";
  REQUIRE(::fchown(disk.get(), 107, 108) == 0);
  if (::fsetxattr(disk.get(), "trusted.libvirt.security.dac", remembered.c_str(),
                  remembered.size() + 1, 0) != 0) {
    WARN("this filesystem has no trusted attributes");
    return;
  }
  REQUIRE(::fsetxattr(disk.get(), "trusted.libvirt.security.ref_dac", "1", 2, 0) == 0);
  REQUIRE(::fsetxattr(disk.get(), "trusted.mine", "y", 1, 0) == 0);
  const auto owner = live::remembered_owner(disk.get(), "disk");
  REQUIRE(owner);
  CHECK(owner->user == 12);
  CHECK(owner->group == 13);
  REQUIRE(live::carry_rights(disk.get(), fresh.get(), *owner, "fresh"));
  struct stat status {};
  REQUIRE(::fstat(fresh.get(), &status) == 0);
  CHECK(status.st_uid == 12);
  CHECK(status.st_gid == 13);
  CHECK((status.st_mode & 07777) == 0640);
  char value[64];
  CHECK(::fgetxattr(fresh.get(), "trusted.mine", value, sizeof value) == 1);
  CHECK(::fgetxattr(fresh.get(), "trusted.libvirt.security.dac", value, sizeof value) < 0);
  CHECK(::fgetxattr(fresh.get(), "trusted.libvirt.security.ref_dac", value, sizeof value) < 0);

  REQUIRE(::fsetxattr(disk.get(), "trusted.libvirt.security.dac", "x", 2, 0) == 0);
  CHECK_FALSE(live::remembered_owner(disk.get(), "disk"));
}
