#include "optimize/file_attributes.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/retry.h"

namespace vc::optimize {

namespace {

constexpr const char* kAccessList = "system.posix_acl_access";

Result<std::vector<std::string>> attribute_names(int fd) {
  std::vector<char> text(1024);
  ssize_t length = 0;
  while ((length = retry(::flistxattr, fd, text.data(), text.size())) < 0 && errno == ERANGE)
    text.resize(text.size() * 2);
  if (length < 0) {
    if (errno == ENOTSUP) return std::vector<std::string>{};
    return fail(Error::system(errno, "list the extended attributes"));
  }
  std::vector<std::string> names;
  for (size_t at = 0; at < static_cast<size_t>(length); at += names.back().size() + 1)
    names.emplace_back(&text[at]);
  return names;
}

Result<std::vector<char>> attribute(int fd, const std::string& name) {
  std::vector<char> value(1024);
  ssize_t length = 0;
  while ((length = retry(::fgetxattr, fd, name.c_str(), value.data(), value.size())) < 0 &&
         errno == ERANGE)
    value.resize(value.size() * 2);
  if (length < 0) return fail(Error::system(errno, fmt::format("read attribute {}", name)));
  value.resize(static_cast<size_t>(length));
  return value;
}

}  // namespace

Result<std::vector<std::string>> copy_attributes(int from, int to) {
  struct stat wanted {};
  struct stat now {};
  if (retry(::fstat, from, &wanted) != 0 || retry(::fstat, to, &now) != 0)
    return fail(Error::system(errno, "inspect the file"));
  if ((wanted.st_uid != now.st_uid || wanted.st_gid != now.st_gid) &&
      retry(::fchown, to, wanted.st_uid, wanted.st_gid) != 0)
    return fail(Error::system(
        errno, fmt::format("set the owner {}:{} of the disk", wanted.st_uid, wanted.st_gid)));
  // After fchown, which may clear mode bits. Before the ACLs, whose mask is the group bits of the
  // mode.
  if (retry(::fchmod, to, wanted.st_mode & 07777) != 0)
    return fail(Error::system(errno, "set the mode of the disk"));

  ASSIGN_OR_RETURN(const auto names, attribute_names(from));
  ASSIGN_OR_RETURN(const auto others, attribute_names(to));
  std::vector<std::string> lost;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const auto value, attribute(from, name));
    if (retry(::fsetxattr, to, name.c_str(), value.data(), value.size(), 0) == 0) continue;
    if (name == kAccessList) return fail(Error::system(errno, "set the ACL of the disk"));
    lost.push_back(name);
  }
  // Removes attributes that the file inherited from its folder, and that the disk does not have.
  for (const std::string& name : others) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    if (retry(::fremovexattr, to, name.c_str()) != 0 && name == kAccessList)
      return fail(Error::system(errno, "remove the ACL that its folder sets"));
  }
  return lost;
}

}  // namespace vc::optimize
