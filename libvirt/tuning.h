// What a domain's disks should be like, and what has to change in its text for that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libvirt/domain.h"

namespace tune {

// The attributes of a QCOW2 disk's <driver>; nothing: whatever is there stays.
struct Settings {
  std::optional<std::string> discard = "unmap";
  std::optional<std::string> detect_zeroes = "unmap";
  std::optional<std::string> cache = "none";
  std::optional<std::string> io = "native";

  // Of the <blockio>: what a guest may trim at once, bytes.  Nothing: what suits Windows, on the
  // disks of one, where none is set.
  std::optional<uint64_t> discard_granularity = {};
  bool keep_granularity = false;  // whatever is there stays

  // Only the disks with these targets ("vda"); empty: all of them.
  std::vector<std::string> targets;
};

// An error if libvirt knows no such value, or two of them cannot go together.
qcow2::Result<void> check(const Settings& settings);

struct Change {
  std::string attribute;
  std::string from;  // empty: it was not there
  std::string to;
};

struct DiskReport {
  size_t line = 0;
  std::string target;
  std::string source;
  std::string bus;
  std::string format;           // empty: not said
  std::string skipped;          // why it is left alone; empty: it is not
  std::vector<Change> changes;  // none: it is as it should be, or left alone
  std::vector<std::string> advice;
};

// A cluster of most images.  With QEMU's 4 KiB, Windows's ReTrim moves data about, or trims nothing
// (virtio-win issues 666 and 1574).
inline constexpr uint64_t kWindowsGranularity = 64 << 10;

struct Tuning {
  std::string text;      // the definition as it should be
  bool windows = false;  // it is taken for one of Windows
  std::vector<DiskReport> disks;

  size_t changes() const;
};

// Changes values of those attributes in `text`, and adds what is missing; every other byte stays.
// What comes out is not changed by another go.  `name` is what to call the text in messages.
qcow2::Result<Tuning> tune(std::string_view text, const std::string& name,
                           const Settings& settings);

}  // namespace tune
