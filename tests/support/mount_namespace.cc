#include "tests/support/mount_namespace.h"

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace vc::support {

namespace {

std::string enter() {
  if (::geteuid() != 0) return "only root can mount filesystems";
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return std::string("a mount namespace: ") + std::strerror(errno);
  return "";
}

}  // namespace

const std::string& enter_mount_namespace() {
  static const std::string refused = enter();
  return refused;
}

}  // namespace vc::support
