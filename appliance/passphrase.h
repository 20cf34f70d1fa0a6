// Opens encrypted disks, with the --key option of the virt-* tools (guestfish(1)).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "appliance/appliance.h"
#include "appliance/observer.h"
#include "base/result.h"

namespace vc::appliance {

struct Passphrase {
  std::string selector;  // a device, the UUID of a LUKS device, or "all"
  std::string text;      // unused with `clevis`
  bool clevis = false;   // a network server provides the key
};

// Parses "SELECTOR:key:TEXT", "SELECTOR:file:PATH" (first line of the file), or "SELECTOR:clevis".
// No error text contains a passphrase.
Result<Passphrase> parse_passphrase(std::string_view text);

// Opens each encrypted device for which there is a passphrase, so that trims reach the disk, and
// activates the logical volumes in it. Tells the observer about devices that could not be opened.
// Returns the opened devices.
Result<std::vector<std::string>> open_encrypted(const Appliance& appliance,
                                                const std::vector<Passphrase>& passphrases,
                                                Observer& observer);

struct Encrypted {
  std::string device;
  std::string type;  // type as blkid names it
  std::string uuid;  // empty: none
};

// Returns all encrypted disks, partitions and logical volumes, opened or not.
Result<std::vector<Encrypted>> encrypted_devices(const Appliance& appliance);

// Returns true if blkid's `type` is one of an encrypted device.
bool is_encrypted(std::string_view type);

}  // namespace vc::appliance
