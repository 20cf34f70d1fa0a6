#include "appliance/passphrase.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>

namespace vc::appliance {

namespace {

// Returns an unused name for an opened device: /dev/mapper/NAME.
std::string mapping_name(size_t index) {
  return fmt::format("crypt{}", index);
}

// Quotes any text for a shell.
std::string shell_word(std::string_view text) {
  std::string result = "'";
  for (const char c : text) {
    if (c == '\'')
      result += "'\\''";
    else
      result += c;
  }
  return result + "'";
}

// Sets the option for discards, which libguestfs omits when it opens a device.
Result<void> allow_discards(const Appliance& it, const std::string& mapping,
                            const Passphrase& passphrase) {
  // If the kernel keeps the key, the command neither asks for a passphrase nor reads one.
  const std::string command =
      fmt::format("printf %s {} | cryptsetup refresh --allow-discards --key-file - {} 2>&1",
                  shell_word(passphrase.text), shell_word(mapping));
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

bool fits(const Passphrase& passphrase, const Encrypted& device) {
  return passphrase.selector == "all" || passphrase.selector == device.device ||
         passphrase.selector == device.uuid;
}

// Returns the text, and frees it. nullptr becomes an empty string.
std::string take(char* text) {
  std::string result = text ? text : "";
  std::free(text);
  return result;
}

// Returns false if the passphrase does not fit the device.
Result<bool> try_to_open(const Appliance& it, const Encrypted& device, const Passphrase& passphrase,
                         size_t index, Observer& observer) {
  const std::string mapping = mapping_name(index);
  if (open_device(it, device.device, mapping, passphrase) != 0) {
    RETURN_IF_ERROR(it.cancelled());
    return false;
  }
  if (const auto allowed = allow_discards(it, mapping, passphrase); !allowed) {
    RETURN_IF_ERROR(it.cancelled());
    observer.warning(fmt::format("{}: the encryption layer does not pass discards on: {}",
                                 device.device, allowed.error().message()));
  }
  return true;
}

}  // namespace

bool is_encrypted(std::string_view type) {
  return type == "crypto_LUKS" || type == "BitLocker";
}

Result<Passphrase> parse_passphrase(std::string_view text) {
  const auto wrong = [] {
    return fail(
        Error::invalid("the value must be SELECTOR:key:TEXT, SELECTOR:file:PATH or "
                       "SELECTOR:clevis, where SELECTOR is a device, a UUID or 'all'"));
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
    return fail(Error::unsupported(
        "this version of libguestfs does not support Clevis: 1.50 or later does"));
#endif
  }
  if (second == std::string_view::npos) return wrong();
  passphrase.text = rest.substr(second + 1);
  if (kind == "key") return passphrase;
  if (kind != "file") return wrong();
  const std::string path = passphrase.text;
  std::ifstream file(path, std::ios::binary);
  passphrase.text.clear();
  if (!file) return fail(Error::system(errno == 0 ? EIO : errno, path));
  std::getline(file, passphrase.text);
  if (file.bad()) return fail(Error::system(EIO, path));
  return passphrase;
}

Result<std::vector<Encrypted>> encrypted_devices(const Appliance& appliance) {
  guestfs_h* const g = appliance.handle();
  std::vector<Encrypted> found;
  for (const auto list : {guestfs_list_devices, guestfs_list_partitions, guestfs_lvs}) {
    ASSIGN_OR_RETURN(const auto devices, appliance.list(list(g), "devices"));
    for (const std::string& device : devices) {
      Encrypted encrypted;
      encrypted.device = device;
      // Errors are ignored: a device with a partition table causes one, for example.
      encrypted.type = take(guestfs_vfs_type(g, device.c_str()));
      if (!is_encrypted(encrypted.type)) continue;
      encrypted.uuid = take(guestfs_vfs_uuid(g, device.c_str()));
      found.push_back(std::move(encrypted));
    }
  }
  RETURN_IF_ERROR(appliance.cancelled());
  return found;
}

Result<std::vector<std::string>> open_encrypted(const Appliance& appliance,
                                                const std::vector<Passphrase>& passphrases,
                                                Observer& observer) {
  std::vector<std::string> opened;
  if (passphrases.empty()) return opened;
  guestfs_h* const g = appliance.handle();
  std::vector<bool> used(passphrases.size());
  std::vector<std::string> seen;
  // A logical volume inside of an encrypted device may be encrypted, too. Repeats until no new
  // device appears.
  for (bool found = true; found;) {
    found = false;
    ASSIGN_OR_RETURN(const auto devices, encrypted_devices(appliance));
    for (const Encrypted& device : devices) {
      if (std::find(seen.begin(), seen.end(), device.device) != seen.end()) continue;
      seen.push_back(device.device);
      bool tried = false;
      bool open = false;
      for (size_t i = 0; i < passphrases.size() && !open; ++i) {
        if (!fits(passphrases[i], device)) continue;
        used[i] = tried = true;
        observer.step("Opening " + device.device);
        ASSIGN_OR_RETURN(open,
                         try_to_open(appliance, device, passphrases[i], opened.size(), observer));
      }
      if (open) {
        found = true;
        opened.push_back(device.device);
      } else if (tried) {
        observer.warning(device.device + ": none of the given keys opens appliance");
      }
    }
    if (found) RETURN_IF_ERROR(appliance.check(guestfs_lvm_scan(g, 1), "logical volumes"));
  }
  for (size_t i = 0; i < passphrases.size(); ++i)
    if (!used[i])
      observer.warning(
          fmt::format("--key {}: there is no such encrypted device", passphrases[i].selector));
  return opened;
}

}  // namespace vc::appliance
