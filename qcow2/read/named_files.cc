#include "qcow2/read/named_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "storage/user_rights.h"

namespace vc::qcow2 {

const char* to_string(NameRule rule) {
  switch (rule) {
    case NameRule::kOwner:
      return "owner";
    case NameRule::kFollow:
      return "follow";
    case NameRule::kDeny:
      return "deny";
    case NameRule::kLeaveOut:
      return "none";
  }
  return "";
}

std::optional<NameRule> parse_name_rule(std::string_view word) {
  for (const auto rule :
       {NameRule::kOwner, NameRule::kFollow, NameRule::kDeny, NameRule::kLeaveOut})
    if (word == to_string(rule)) return rule;
  return std::nullopt;
}

void NamedFiles::add_author(const FileStorage& image) {
  const uid_t user = image.owner();
  if (!has_more_rights_than(user)) return;
  const bool known = std::any_of(authors_.begin(), authors_.end(),
                                 [&](const Author& it) { return it.user == user; });
  if (!known) authors_.push_back({user, image.name()});
}

std::string NamedFiles::option(Kind kind, std::string_view value) const {
  return fmt::format("{}{}={}", policy_.prefix, kind == Kind::kBacking ? "backing" : "data-file",
                     value);
}

Result<void> NamedFiles::check_allowed(Kind kind, const std::string& name) const {
  if (rule(kind) != NameRule::kDeny) return {};
  return fail(Error::invalid(fmt::format(
      "'{}': the image names this file, which is not allowed ({})", name, option(kind, "deny"))));
}

Result<std::shared_ptr<FileStorage>> NamedFiles::open_for(const Author& author, Kind kind,
                                                          const std::string& path,
                                                          bool writable) const {
  auto file = FileStorage::open_as(rights_of(author.user), path, writable);
  if (file || file.error().kind() != Error::Kind::kSystem) return file;
  const int errnum = file.error().errnum();
  if (errnum != EACCES && errnum != EPERM) return file;
  return fail(
      Error::system(errnum, fmt::format("{}: {} owns {}, which names this file, but has no right "
                                        "to {} it (to trust the image, use {})",
                                        path, describe_user(author.user), author.image,
                                        writable ? "write" : "read", option(kind, "follow"))));
}

Result<std::shared_ptr<FileStorage>> NamedFiles::open(Kind kind, const std::string& path,
                                                      bool writable) const {
  if (rule(kind) == NameRule::kFollow || authors_.empty())
    return writable ? FileStorage::open_writable(path) : FileStorage::open_readonly(path);
  std::shared_ptr<FileStorage> opened;
  for (const Author& author : authors_) {
    ASSIGN_OR_RETURN(auto file, open_for(author, kind, path, writable));
    if (opened && !(opened->identity() == file->identity()))
      return fail(Error::system(
          EBUSY, path + ": the file was replaced while its permissions were checked"));
    opened = std::move(file);
  }
  return opened;
}

}  // namespace vc::qcow2
