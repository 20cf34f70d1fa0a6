// The ways to name an image that qemu-img knows beside its path, for the scripts that use them.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "qcow2/read/chain.h"
#include "tool/options/arguments.h"

namespace tool {

class QemuNames {
 public:
  // --image-opts and --object.  They bind to this object, which must outlive `app`.
  void add_options(CLI::App& app);

  // Makes of a name what the rest of the program takes: "file:PATH" becomes the path, and so do
  // json:{…} and, with --image-opts, driver=…,file.filename=PATH, which set `format`, too.  Any
  // other name stays as it is.  That a name says what is not understood here is an error, never
  // passed over.
  qcow2::Result<void> resolve(std::string& name, std::optional<qcow2::Format>& format) const;

  // --target-image-opts, and the same for a name of what is written.
  void add_target_options(CLI::App& app);
  qcow2::Result<void> resolve_target(std::string& name, std::optional<qcow2::Format>& format) const;

 private:
  bool image_opts_ = false;
  bool target_image_opts_ = false;
  std::string object_;  // taken, and of no use: what would need it is refused
};

// "file:PATH" without its protocol; any other name as it is.
std::string plain_path(const std::string& name);

// The id or name of a snapshot in qemu-img's words: itself, "snapshot.id=ID" or
// "snapshot.name=NAME".
qcow2::Result<std::string> parse_snapshot_param(const std::string& text);

}  // namespace tool
