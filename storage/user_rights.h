// Opening a file with the rights of another user.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "storage/descriptor.h"

namespace qcow2 {

// What the kernel checks when `user` opens a file.
struct UserRights {
  uid_t user = 0;
  gid_t group = 0;
  std::vector<gid_t> groups;
};

// Those that the user database gives `user`.  A user who is not in it has no group but `nogroup`:
// the group of one of his files may be that of a folder, and proves nothing.
UserRights rights_of(uid_t user);

// "NAME (uid N)", or "uid N" for a user who is not in the database.
std::string describe_user(uid_t user);

// Whether this process can open files that `user` cannot because it is root or has capabilities
// that override permissions.  Rights that just differ, as those of two plain users do, do not
// count.
bool has_more_rights_than(uid_t user);

// open (2) by `rights`, and without capabilities: returns the descriptor.
//
// The kernel decides, in a thread that takes on the rights and ends: so access lists, search
// permission on each folder, root_squash of NFS and security modules count as they do for the user,
// and what was checked is what was opened.  A failed open is a system error without context.
Result<Descriptor> open_as(const UserRights& rights, const std::string& path, int flags);

}  // namespace qcow2
