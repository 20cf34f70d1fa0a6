// qemu-img's ways to name an image other than its path, for scripts that use them.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "qcow2/read/chain.h"
#include "tool/options/arguments.h"
#include "tool/options/disk_keys.h"

namespace vc::tool {

class QemuNames {
 public:
  // Adds --image-opts and --object. They bind to this object, which must outlive `app`. Secrets
  // that names refer to are added to `keys`.
  void add_options(CLI::App& app, std::shared_ptr<crypto::KeyRing> keys);

  // Converts `name` to a name that the rest of the program accepts: "file:PATH" becomes the path,
  // and so do json:{…} and, with --image-opts, driver=…,file.filename=PATH, which can also set
  // `format` and name the secrets of encrypted images. Other names stay unchanged. Unsupported keys
  // are errors, never ignored.
  Result<void> resolve(std::string& name, std::optional<qcow2::Format>& format) const;

  // Adds --target-image-opts, and converts the name of a destination.
  void add_target_options(CLI::App& app);
  Result<void> resolve_target(std::string& name, std::optional<qcow2::Format>& format) const;

  const QemuSecrets& secrets() const { return secrets_; }

 private:
  bool image_opts_ = false;
  bool target_image_opts_ = false;
  QemuSecrets secrets_;
  std::shared_ptr<crypto::KeyRing> keys_;
};

// Returns the path in "file:PATH". Returns any other name unchanged.
std::string plain_path(const std::string& name);

// Returns the ID or name of a snapshot in qemu-img's syntax: the word itself, "snapshot.id=ID" or
// "snapshot.name=NAME".
Result<std::string> parse_snapshot_param(const std::string& text);

}  // namespace vc::tool
