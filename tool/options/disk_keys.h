// Passphrases of encrypted disk images, as the user gives them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "crypto/secret.h"
#include "tool/options/arguments.h"

namespace vc::tool {

// "disk:", with which --key means the image, and not a volume of the guest.
inline constexpr std::string_view kDiskKey = "disk:";

// Reads a passphrase: "disk:file:PATH" (the first line of the file), "disk:key:TEXT", or
// "disk:prompt", which asks on the terminal.
Result<crypto::Secret> parse_disk_key(const std::string& text);

// Adds --key, for commands without volumes of a guest.  It may be given several times, and adds to
// `keys`.
void add_disk_key_option(CLI::App& app, const std::shared_ptr<crypto::KeyRing>& keys);

// QEMU's secrets, by ID.
class QemuSecrets {
 public:
  // Adds the value of --object.  Objects other than secrets have no effect.
  Result<void> add(const std::string& object);

  Result<std::shared_ptr<const crypto::Secret>> find(const std::string& id) const;

 private:
  std::map<std::string, std::shared_ptr<const crypto::Secret>> secrets_;
};

// Adds --object.  It binds to `secrets`, which must outlive `app`.
void add_object_option(CLI::App& app, QemuSecrets& secrets);

}  // namespace vc::tool
