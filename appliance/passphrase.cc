#include "appliance/passphrase.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>

namespace appliance {

using qcow2::Error;
using qcow2::Result;

namespace {

// The name of what is inside, which must be free: /dev/mapper/NAME.
std::string mapping_name(size_t index) {
  return fmt::format("crypt{}", index);
}

// For a shell, whatever is in it.
std::string quoted(std::string_view text) {
  std::string result = "'";
  for (const char c : text) {
    if (c == '\'')
      result += "'\\''";
    else
      result += c;
  }
  return result + "'";
}

// libguestfs opens devices so that discards stop there, and has no option for it.
Result<void> allow_discards(const Appliance& it, const std::string& mapping,
                            const Passphrase& passphrase) {
  // Where the key is kept by the kernel none is asked for, and none is read.
  const std::string command =
      fmt::format("printf %s {} | cryptsetup refresh --allow-discards --key-file - {} 2>&1",
                  quoted(passphrase.text), quoted(mapping));
  const char* const words[] = {command.c_str(), nullptr};
  RETURN_IF_ERROR(it.text(guestfs_debug(it.handle(), "sh", const_cast<char* const*>(words)),
                          "cryptsetup refresh"));
  return {};
}

int open_device(const Appliance& it, const std::string& device, const std::string& mapping,
                const Passphrase& passphrase) {
#ifdef GUESTFS_HAVE_CLEVIS_LUKS_UNLOCK
  if (passphrase.clevis)
    return guestfs_clevis_luks_unlock(it.handle(), device.c_str(), mapping.c_str());
#endif
  return guestfs_cryptsetup_open(it.handle(), device.c_str(), passphrase.text.c_str(),
                                 mapping.c_str(), -1);
}

bool fits(const Passphrase& passphrase, const std::string& device, const std::string& uuid) {
  return passphrase.selector == "all" || passphrase.selector == device ||
         passphrase.selector == uuid;
}

}  // namespace

bool is_encrypted(std::string_view type) {
  return type == "crypto_LUKS" || type == "BitLocker";
}

Result<Passphrase> parse_passphrase(std::string_view text) {
  const auto wrong = [] {
    return qcow2::fail(
        Error::invalid("it is SELECTOR:key:TEXT, SELECTOR:file:PATH or SELECTOR:clevis, and "
                       "SELECTOR a device, a UUID or 'all'"));
  };
  Passphrase passphrase;
  const size_t first = text.find(':');
  if (first == 0 || first == std::string_view::npos) return wrong();
  passphrase.selector = text.substr(0, first);
  const std::string_view rest = text.substr(first + 1);
  const size_t second = rest.find(':');
  const std::string_view kind = rest.substr(0, second);
  if (kind == "clevis" && second == std::string_view::npos) {
#ifdef GUESTFS_HAVE_CLEVIS_LUKS_UNLOCK
    passphrase.clevis = true;
    return passphrase;
#else
    return qcow2::fail(Error::unsupported("this libguestfs knows nothing of Clevis: from 1.50 on"));
#endif
  }
  if (second == std::string_view::npos) return wrong();
  passphrase.text = rest.substr(second + 1);
  if (kind == "key") return passphrase;
  if (kind != "file") return wrong();
  const std::string path = passphrase.text;
  std::ifstream file(path, std::ios::binary);
  passphrase.text.clear();
  if (!file) return qcow2::fail(Error::system(errno == 0 ? EIO : errno, path));
  std::getline(file, passphrase.text);
  if (file.bad()) return qcow2::fail(Error::system(EIO, path));
  return passphrase;
}

Result<std::vector<std::string>> open_encrypted(const Appliance& it,
                                                const std::vector<Passphrase>& passphrases,
                                                Observer& observer) {
  std::vector<std::string> opened;
  if (passphrases.empty()) return opened;
  guestfs_h* const g = it.handle();
  size_t mappings = 0;
  // What is encrypted may be on a logical volume that comes to light in what was encrypted: once
  // more, until nothing new comes.
  std::vector<std::string> seen;
  for (bool found = true; found;) {
    found = false;
    ASSIGN_OR_RETURN(const auto list, it.list(guestfs_list_filesystems(g), "filesystems"));
    for (size_t i = 0; i + 1 < list.size(); i += 2) {
      const std::string& device = list[i];
      if (!is_encrypted(list[i + 1]) || std::find(seen.begin(), seen.end(), device) != seen.end())
        continue;
      seen.push_back(device);
      char* const uuid_text = guestfs_vfs_uuid(g, device.c_str());
      const std::string uuid = uuid_text ? uuid_text : "";
      std::free(uuid_text);
      bool tried = false;
      bool open = false;
      for (const Passphrase& passphrase : passphrases) {
        if (open || !fits(passphrase, device, uuid)) continue;
        tried = true;
        observer.step("Opening " + device);
        const std::string mapping = mapping_name(mappings++);
        const int done = open_device(it, device, mapping, passphrase);
        const auto result = it.check(done, device);
        if (!result && result.error().kind() == Error::Kind::kCancelled)
          return qcow2::fail(result.error());
        if (!result) continue;
        open = found = true;
        opened.push_back(device);
        if (const auto allowed = allow_discards(it, mapping, passphrase); !allowed) {
          if (allowed.error().kind() == Error::Kind::kCancelled)
            return qcow2::fail(allowed.error());
          observer.warning(fmt::format("{}: discards do not get through the encryption: {}", device,
                                       allowed.error().message()));
        }
      }
      if (tried && !open) observer.warning(device + ": no key that was given opens it");
    }
    if (found) RETURN_IF_ERROR(it.check(guestfs_lvm_scan(g, 1), "logical volumes"));
  }
  for (const Passphrase& passphrase : passphrases) {
    bool used = passphrase.selector == "all";
    for (const std::string& device : seen) {
      char* const uuid_text = guestfs_vfs_uuid(g, device.c_str());
      used = used || fits(passphrase, device, uuid_text ? uuid_text : "");
      std::free(uuid_text);
    }
    if (!used)
      observer.warning(
          fmt::format("--key {}: there is no such encrypted device", passphrase.selector));
  }
  return opened;
}

}  // namespace appliance
