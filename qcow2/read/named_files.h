// Which of the files that an image names are opened, and with whose rights.
//
// Who wrote an image chose the names in it, and whoever opens it lends him his own rights: an image
// of a plain user that names /etc/shadow would make root copy that into the result.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "storage/file_storage.h"

namespace qcow2 {

enum class NameRule {
  kOwner,     // what the owner of the image could open himself
  kFollow,    // whatever it is
  kDeny,      // nothing: that an image names a file is an error
  kLeaveOut,  // nothing: what would come from there reads as zeros; of backing files alone
};

// "owner", "follow", "deny" and "none", as users give them.
const char* to_string(NameRule rule);
std::optional<NameRule> parse_name_rule(std::string_view word);

struct NamePolicy {
  NameRule backing = NameRule::kOwner;
  // Without it: kDeny if that is the rule for backing files, else kOwner.
  std::optional<NameRule> data_file;
  // How a user gives these rules, for messages: what stands before "backing=" and "data-file=".
  std::string prefix = "--";

  NameRule data_file_rule() const {
    return data_file.value_or(backing == NameRule::kDeny ? NameRule::kDeny : NameRule::kOwner);
  }

  // For an image that we have made, and whose names the user gave.
  NamePolicy for_own_image() const {
    NamePolicy policy = *this;
    if (backing != NameRule::kFollow) policy.backing = NameRule::kOwner;
    if (data_file_rule() != NameRule::kFollow) policy.data_file = NameRule::kOwner;
    return policy;
  }
};

// Opens what the images of one chain name, from the top down.
class NamedFiles {
 public:
  enum class Kind { kBacking, kDataFile };

  explicit NamedFiles(const NamePolicy& policy) : policy_(policy) {}

  // From now on names come from `image`, too.  The owners of the images above still count: it is
  // they who have led here.
  void add_author(const FileStorage& image);

  // The rule is kDeny: an error, which names the option.  `name` is as it stands in the image.
  Result<void> check_allowed(Kind kind, const std::string& name) const;

  // Opens `path`.  By kOwner, all authors that we have more rights than must be able to open it
  // like this: a system error (EACCES, mostly) names one who is not, his image, and the option.
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
  std::vector<Author> authors_;  // those with fewer rights than ours, each user once
};

}  // namespace qcow2
