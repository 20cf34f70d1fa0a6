// The result of reading a filesystem's metadata.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "guest/reading/block.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/found_file.h"
#include "guest/reading/ranges.h"

namespace vc::guest {

struct Reading {
  enum class Verdict {
    kFree,       // the content of `free` may become undefined
    kDoubt,      // the metadata are incomplete or not understood: the appliance may know
    kLeftAlone,  // its free space may be needed, or no reader is known
    kSuspended,  // a guest has saved its session here: its disks must not change
  };

  Verdict verdict = Verdict::kFree;
  std::string why;  // for all verdicts except kFree
  Ranges free;      // bytes of the volume; only with kFree
  std::string label;
  std::string uuid;  // in libblkid's form
  std::string type;  // libblkid's name; empty: name of the reader
  // The format does not show whether a running or saved guest uses the volume. The result counts
  // only if no other volume of the guest is unclean.
  bool is_unmarked = false;
};

// A reader of one format. An error of `read` means kDoubt.
struct Format {
  const char* type;
  // Returns true if a volume that begins with `head` has this format. `head`: kHeadSize bytes, or a
  // whole smaller volume.
  bool (*probe)(const Fields& head);
  Result<Reading> (*read)(const ByteView& view);
  // Finds files of a volume for which `read` returned kFree. nullptr: there are no such files.
  Result<std::vector<FoundFile>> (*find)(const ByteView& view, const Ranges& free,
                                         const FileKinds& kinds) = nullptr;
};
inline constexpr uint64_t kHeadSize = 68 << 10;

// Returns an error that says why the volume cannot be trusted: `return doubt("…")`.
Failure doubt(std::string why);

// Same for a volume that was not unmounted: a guest may still have newer data in memory.
Failure unclean(std::string why);
// Returns true if the error is one of unclean().
bool is_unclean(const Error& error);

// For Format::find: returns an error if swap files are requested, since this format has no search
// for them.
Result<std::vector<FoundFile>> no_swap_files(const ByteView& view, const Ranges& free,
                                             const FileKinds& kinds);

Reading left_alone(std::string why);
Reading suspended(std::string why);

// Formats 16 bytes as hexadecimal digits: 8-4-4-4-12.
std::string uuid_text(const Fields& bytes);
// Same, with the first three groups little-endian, as in a GPT.
std::string guid_text(const Fields& bytes);
// Returns a name without its padding of zeros or blanks.
std::string padded_text(const Fields& bytes);
// Converts ASCII letters to lower case.
std::string lower_text(std::string text);
// Converts UTF-16, little-endian, up to a zero.
std::string utf16_text(const Fields& bytes);

inline bool is_power_of_two(uint64_t n) {
  return n != 0 && (n & (n - 1)) == 0;
}
}  // namespace vc::guest
