// What a filesystem's metadata say of its volume.
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
    kFree,       // `free` may read as anything from now on
    kDoubt,      // the metadata are not the whole truth, or not understood: the appliance may know
    kLeftAlone,  // something needs what looks free, or nothing is known to read it
    kSuspended,  // a guest has saved its session here: its disks must not change
  };

  Verdict verdict = Verdict::kFree;
  std::string why;  // for all but kFree
  Ranges free;      // bytes of the volume; kFree only
  std::string label;
  std::string uuid;  // as libblkid writes it
  std::string type;  // as libblkid calls it; empty: what the reader is called
  // A guest that runs, or whose memory is saved, leaves no mark in this volume: it is believed only
  // if no other volume of the guest is unclean.
  bool is_unmarked = false;
};

// A reader of one format.  An error of `read` means the same as kDoubt.
struct Format {
  const char* type;
  // Whether a volume that begins with `head` (kHeadSize bytes, or all of a smaller one) has it.
  bool (*probe)(const Fields& head);
  Result<Reading> (*read)(const ByteView& view);
  // Finds files of a volume that `read` calls free in parts; nullptr: it has none of any kind.
  Result<std::vector<FoundFile>> (*find)(const ByteView& view, const Ranges& free,
                                         const FileKinds& kinds) = nullptr;
};
inline constexpr uint64_t kHeadSize = 68 << 10;

// `return doubt ("…")`: an error that says why a volume is not to be believed.
Failure doubt(std::string why);

// The same for a volume that was not unmounted, so that its guest may go on with what it has in
// memory.
Failure unclean(std::string why);
// Whether the error is one of unclean().
bool is_unclean(const Error& error);

// For Format::find: of swap files it is not known where they are.
Result<std::vector<FoundFile>> no_swap_files(const ByteView& view, const Ranges& free,
                                             const FileKinds& kinds);

Reading left_alone(std::string why);
Reading suspended(std::string why);

// 16 bytes as 8-4-4-4-12 hexadecimal digits.
std::string uuid_text(const Fields& bytes);
// The same where the first three groups are little-endian, as in a GPT.
std::string guid_text(const Fields& bytes);
// A name that is padded with zeros or blanks.
std::string padded_text(const Fields& bytes);
// With the letters of ASCII in lower case.
std::string lower_text(std::string text);
// UTF-16, little-endian, up to a zero.
std::string utf16_text(const Fields& bytes);

inline bool is_power_of_two(uint64_t n) {
  return n != 0 && (n & (n - 1)) == 0;
}
inline uint64_t divide_up(uint64_t n, uint64_t by) {
  return n / by + (n % by != 0 ? 1 : 0);
}

}  // namespace vc::guest
