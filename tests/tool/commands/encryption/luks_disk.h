// Encrypted images, made and read by QEMU.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tests/support/process.h"

namespace vc::tool_test {

inline constexpr const char* kPassphrase = "geheim";

// Creates an image with QEMU.  `options`: more options of -o, each with a leading comma.
void create_luks(const std::string& path, const std::string& size, const std::string& options = "",
                 const std::string& passphrase = kPassphrase);

// Runs qemu-io commands on an encrypted image, with its backing file if `base` has its passphrase.
void qemu_io(const std::string& path, const std::vector<std::string>& commands,
             const std::string& passphrase = kPassphrase, const std::string& base = "");

// Returns what QEMU reads of the disk.
std::vector<std::byte> qemu_reads(const std::string& path,
                                  const std::string& passphrase = kPassphrase,
                                  const std::string& base = "");

// Runs `qemu-img <words> <secret> IMAGE <rest>`, which must succeed.
support::Outcome qemu_img(std::vector<std::string> words, const std::string& path,
                          const std::vector<std::string>& rest = {});

// Returns what QEMU reads of the disk at a snapshot.
std::vector<std::byte> qemu_reads_snapshot(const std::string& path, const std::string& snapshot);

// Returns the dirty ranges of a bitmap, as QEMU tells an NBD client.
std::string qemu_dirty_map(const std::string& path, const std::string& bitmap);

// Checks with QEMU.  The outcome is fine only if it finds nothing.
support::Outcome qemu_check(const std::string& path);

// Writes the passphrase into a file, and returns --key for it.
std::string key_in_file(const std::string& path, const std::string& passphrase = kPassphrase);

// Returns the LUKS header in an image, with its key material.
std::vector<std::byte> luks_header(const std::string& path);
// Returns its offset in the image, bytes.
uint64_t luks_offset(const std::string& path);

// Returns the offset of the header extension that names this place.
uint64_t luks_extension(const std::string& path);

// Random writes for qemu-io in a disk of `size` bytes.
std::vector<std::string> random_writes(uint64_t seed, uint64_t size, unsigned count);

}  // namespace vc::tool_test
