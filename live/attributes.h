// Owner and labels of the files of a running domain.
//
// While a domain runs, libvirt gives its disks to the user of QEMU, and remembers the previous
// owner and label in extended attributes (trusted.libvirt.security.*) that also count the users of
// the file.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"

namespace vc::live {

struct Owner {
  uid_t user = 0;
  gid_t group = 0;
};

// Returns the owner that the file gets back when no domain uses it.
Result<Owner> remembered_owner(int fd, const std::string& name);

// Parses libvirt's form of an owner, "+107:+107". Returns false if it is not valid.
bool parse_owner(const std::string& text, Owner& owner);

// Gives the new file `to` the access rights that the file `from` has while no domain uses it, and
// none of the attributes in which libvirt counts the users of `from`.
Result<void> carry_rights(int from, int to, const Owner& owner, const std::string& name);

}  // namespace vc::live
