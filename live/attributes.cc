#include "live/attributes.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/retry.h"
#include "optimize/file_attributes.h"

namespace vc::live {

namespace {

constexpr const char* kRememberedOwner = "trusted.libvirt.security.dac";
constexpr const char* kRememberedLabel = "trusted.libvirt.security.selinux";
constexpr const char* kLabel = "security.selinux";
constexpr std::string_view kOfLibvirt = "trusted.libvirt.";

// Returns nullopt if the file has no such attribute, or this process may not read it.
std::optional<std::string> attribute(int fd, const char* name) {
  std::array<char, 1024> value{};
  const ssize_t length = retry(::fgetxattr, fd, name, value.data(), value.size());
  if (length < 0) return std::nullopt;
  std::string text(value.data(), static_cast<size_t>(length));
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

// Parses "+107" at the start of `text`, and removes it.
bool take_number(std::string_view& text, uint32_t& number) {
  if (!text.starts_with('+')) return false;
  text.remove_prefix(1);
  const auto end = std::from_chars(text.data(), text.data() + text.size(), number);
  if (end.ec != std::errc()) return false;
  text.remove_prefix(static_cast<size_t>(end.ptr - text.data()));
  return true;
}

void remove_libvirts(int fd) {
  std::array<char, 65536> names{};
  const ssize_t length = retry(::flistxattr, fd, names.data(), names.size());
  std::vector<std::string> found;
  for (size_t at = 0; length > 0 && at < static_cast<size_t>(length);
       at += std::string_view(&names[at]).size() + 1)
    if (std::string_view(&names[at]).starts_with(kOfLibvirt)) found.emplace_back(&names[at]);
  for (const std::string& name : found) retry(::fremovexattr, fd, name.c_str());
}

}  // namespace

bool parse_owner(const std::string& text, Owner& owner) {
  std::string_view rest = text;
  uint32_t user = 0;
  uint32_t group = 0;
  if (!take_number(rest, user) || !rest.starts_with(':')) return false;
  rest.remove_prefix(1);
  if (!take_number(rest, group) || !rest.empty()) return false;
  owner = {user, group};
  return true;
}

Result<Owner> remembered_owner(int fd, const std::string& name) {
  struct stat status {};
  if (retry(::fstat, fd, &status) != 0) return fail(Error::system(errno, name));
  Owner owner{status.st_uid, status.st_gid};
  if (const auto remembered = attribute(fd, kRememberedOwner))
    if (!parse_owner(*remembered, owner))
      return fail(Error::invalid(name + ": the attribute " + kRememberedOwner + " is not valid"));
  return owner;
}

Result<void> carry_rights(int from, int to, const Owner& owner, const std::string& name) {
  const auto lost = optimize::copy_attributes(from, to);
  if (!lost) return fail(Error(lost.error()).with_context(name));
  remove_libvirts(to);
  if (const auto label = attribute(from, kRememberedLabel))
    retry(::fsetxattr, to, kLabel, label->data(), label->size(), 0);
  struct stat status {};
  if (retry(::fstat, from, &status) != 0 || retry(::fchown, to, owner.user, owner.group) != 0 ||
      retry(::fchmod, to, status.st_mode & 07777) != 0 || retry(::fsync, to) != 0)
    return fail(Error::system(errno, name + ": set its owner and mode"));
  return {};
}

}  // namespace vc::live
