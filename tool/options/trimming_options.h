// Options that choose what is trimmed of a guest, and how: for all commands that trim.
#pragma once

#include "appliance/trim.h"
#include "tool/options/arguments.h"
#include "tool/options/disk_keys.h"

namespace vc::tool {

// Parses a comma list of "pagefile", "swapfile", "hiberfile", "shadows" and "swap".
Result<appliance::TrimOptions::Drop> parse_drop(const std::string& text);

// Adds --key, --filesystems, --ignore and --drop. They bind to `options`, which must outlive `app`.
// Passphrases of encrypted images (disk_keys.h) are added to `keys`.
void add_trimming_options(CLI::App& app, appliance::TrimOptions& options,
                          const std::shared_ptr<crypto::KeyRing>& keys);

}  // namespace vc::tool
