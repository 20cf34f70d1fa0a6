// Opens files with the rights of another user.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "storage/descriptor.h"

namespace vc {

// The credentials that the kernel checks when `user` opens a file.
struct UserRights {
  uid_t user = 0;
  gid_t group = 0;
  std::vector<gid_t> groups;
};

// Returns the groups of `user` in the user database.  A user who is not in it gets only `nogroup`:
// the group of one of the user's files may also be the group of a folder, and proves nothing.
UserRights rights_of(uid_t user);

// Returns "NAME (uid N)", or "uid N" for a user who is not in the database.
std::string describe_user(uid_t user);

// Returns whether this process, as root or by capabilities that override permissions, can open
// files that `user` cannot open.  Merely different rights, such as those of two ordinary users, do
// not count.
bool has_more_rights_than(uid_t user);

// Calls open (2) with `rights` and without capabilities; returns the descriptor.
//
// The kernel does the check, in a temporary thread with these rights.  So access lists, search
// permission on folders, root_squash of NFS and security modules apply as for the user, and the
// checked file is the opened one.  A failed open is a system error without context.
Result<Descriptor> open_as(const UserRights& rights, const std::string& path, int flags);

}  // namespace vc
