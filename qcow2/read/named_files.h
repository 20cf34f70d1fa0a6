// Decides which files that an image names are opened, and with whose rights.
//
// The author of an image chooses the names in it, and the user who opens it provides the rights: an
// image of an ordinary user that names /etc/shadow would make root copy that file into the result.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "storage/file_storage.h"

namespace vc::qcow2 {

enum class NameRule {
  kOwner,     // files that the image's owner could open
  kFollow,    // any file
  kDeny,      // none: a file name in an image is an error
  kLeaveOut,  // none: its content reads as zeros; for backing files only
};

// The words for users: "owner", "follow", "deny" and "none".
const char* to_string(NameRule rule);
std::optional<NameRule> parse_name_rule(std::string_view word);

struct NamePolicy {
  NameRule backing = NameRule::kOwner;
  // nullopt: kDeny if that is the rule for backing files, else kOwner.
  std::optional<NameRule> data_file;
  // The prefix of the user's options, for messages: the text before "backing=" and "data-file=".
  std::string prefix = "--";

  NameRule data_file_rule() const {
    return data_file.value_or(backing == NameRule::kDeny ? NameRule::kDeny : NameRule::kOwner);
  }

  // Returns the policy for an image that this program has created with names from the user.
  NamePolicy for_own_image() const {
    NamePolicy policy = *this;
    if (backing != NameRule::kFollow) policy.backing = NameRule::kOwner;
    if (data_file_rule() != NameRule::kFollow) policy.data_file = NameRule::kOwner;
    return policy;
  }
};

// Opens the files that the images of one chain name, from the top down.
class NamedFiles {
 public:
  enum class Kind { kBacking, kDataFile };

  explicit NamedFiles(const NamePolicy& policy) : policy_(policy) {}

  // Adds `image` as a source of names.  The owners of the images above still count, since their
  // names led here.
  void add_author(const FileStorage& image);

  // Returns an error that names the option if the rule is kDeny.  `name` is the name in the image.
  Result<void> check_allowed(Kind kind, const std::string& name) const;

  // Opens `path`.  With kOwner, each author with fewer rights than this process must be able to
  // open it in the same way; otherwise returns a system error (mostly EACCES) that names the
  // author, the image, and the option.
  Result<std::shared_ptr<FileStorage>> open(Kind kind, const std::string& path,
                                            bool writable) const;

 private:
  struct Author {
    uid_t user;
    std::string image;
  };

  NameRule rule(Kind kind) const {
    return kind == Kind::kBacking ? policy_.backing : policy_.data_file_rule();
  }
  std::string option(Kind kind, std::string_view value) const;
  Result<std::shared_ptr<FileStorage>> open_for(const Author& author, Kind kind,
                                                const std::string& path, bool writable) const;

  const NamePolicy policy_;
  std::vector<Author> authors_;  // with fewer rights than this process, each user once
};

}  // namespace vc::qcow2
