// How encrypted disks are opened: the --key of the virt-* tools (guestfish(1)).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "appliance/appliance.h"
#include "appliance/observer.h"
#include "base/result.h"

namespace vc::appliance {

struct Passphrase {
  std::string selector;  // a device, a UUID of LUKS, or "all"
  std::string text;      // unless `clevis`
  bool clevis = false;   // a server of the network's knows it
};

// "SELECTOR:key:TEXT", "SELECTOR:file:PATH" (whose first line counts), "SELECTOR:clevis".  No error
// shows a passphrase.
Result<Passphrase> parse_passphrase(std::string_view text);

// Opens each encrypted device that a passphrase fits, so that trimming reaches through it, and
// activates the logical volumes in it.  Tells the observer of those that did not open.  Returns the
// devices that were opened.
Result<std::vector<std::string>> open_encrypted(const Appliance& appliance,
                                                const std::vector<Passphrase>& passphrases,
                                                Observer& observer);

struct Encrypted {
  std::string device;
  std::string type;  // as blkid names it
  std::string uuid;  // empty: none
};

// Disks, partitions and logical volumes that are encrypted, opened or not.
Result<std::vector<Encrypted>> encrypted_devices(const Appliance& appliance);

// Whether blkid's name for what is on a device is one of an encrypted one.
bool is_encrypted(std::string_view type);

}  // namespace vc::appliance
