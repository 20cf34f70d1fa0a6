#include "tool/commands/foreign_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "tool/text/join_words.h"

namespace vc::tool {

namespace {

struct Foreign {
  const char* word;
  const char* advice;
};

// Commands of qemu-img, the virt-* tools and other disk programs.
constexpr std::array kForeign{
    Foreign{"amend", "to change an image's layout, copy it: virt-compact copy -o LIST SRC DST"},
    Foreign{"bitmap", "list bitmaps with virt-compact info, and change them with qemu-img bitmap"},
    Foreign{"clone", "virt-compact copy SRC DST"},
    Foreign{"commit",
            "virt-compact flatten merges an overlay and its backing files into one image; qemu-img "
            "commit writes an overlay into its backing file"},
    Foreign{"compact", "virt-compact optimize DISK, or virt-compact copy SRC DST"},
    Foreign{"compress", "virt-compact copy -c SRC DST"},
    Foreign{"convert", "virt-compact copy SRC DST, with qemu-img convert's options"},
    Foreign{"cp", "virt-compact copy SRC DST"},
    Foreign{"create",
            "create an empty image with qemu-img create, or with nbdkit qcow2 FILE create=true "
            "size=SIZE"},
    Foreign{"dd", "virt-compact copy SRC DST (a part of a disk: qemu-img dd)"},
    Foreign{"defrag", "virt-compact optimize DISK"},
    Foreign{"diff", "virt-compact compare A B"},
    Foreign{"discard", "virt-compact trim DISK"},
    Foreign{"fsck", "virt-compact check FILE"},
    Foreign{"fstrim", "virt-compact trim DISK"},
    Foreign{"inspect", "virt-compact info FILE"},
    Foreign{"ls", "virt-compact info FILE"},
    Foreign{"repair", "virt-compact check -r all FILE"},
    Foreign{"resize",
            "change the size of a disk with qemu-img resize (or virt-resize); make a file smaller "
            "with virt-compact optimize DISK"},
    Foreign{"restore", "virt-compact rollback DISK"},
    Foreign{"revert", "virt-compact rollback DISK, or virt-compact snapshot -a NAME DISK"},
    Foreign{"shrink", "virt-compact optimize DISK, which makes the file smaller, not the disk"},
    Foreign{"sparsify", "virt-compact optimize DISK (in place: virt-compact trim DISK)"},
    Foreign{"undo", "virt-compact rollback DISK, or virt-compact check --apply-undo UNDO FILE"},
    Foreign{"verify", "virt-compact compare A B, or virt-compact check --deep FILE"},
    Foreign{"version", "virt-compact --version"}};

bool names_file(const std::string& word) {
  std::error_code ignored;
  return word.find('/') != std::string::npos || word.find(':') != std::string::npos ||
         word == "[" || word.rfind("[ ", 0) == 0 ||
         std::filesystem::exists(std::filesystem::path(word), ignored);
}

bool has_disk_ending(const std::string& word) {
  constexpr std::array kEndings{".qcow2", ".img", ".raw", ".xml", ".iso", ".vmdk", ".vdi", ".qcow"};
  return std::any_of(kEndings.begin(), kEndings.end(), [&](const std::string& it) {
    return word.size() > it.size() && word.compare(word.size() - it.size(), it.size(), it) == 0;
  });
}

}  // namespace

size_t edit_distance(const std::string& a, const std::string& b) {
  // Optimal string alignment: rows for the two previous letters, the previous letter, and this one.
  std::vector<size_t> before_last;
  std::vector<size_t> last(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    std::vector<size_t> row(b.size() + 1);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] =
          std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1] ? 1 : 0)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    before_last = std::move(last);
    last = std::move(row);
  }
  return last[b.size()];
}

std::string unknown_command_message(const std::string& word,
                                    const std::vector<std::string>& commands) {
  const std::string message = fmt::format("unknown command '{}'", word);
  for (const Foreign& it : kForeign)
    if (word == it.word) return fmt::format("{}: {}", message, it.advice);
  if (names_file(word) || has_disk_ending(word))
    return fmt::format(
        "'{0}': the command before it is missing, as in virt-compact info {0}, or virt-compact "
        "optimize {0}",
        word);
  // Two changes turn a word of four letters into a different word.
  const size_t most = word.size() < 5 ? 1 : 2;
  std::vector<std::string> near;
  size_t least = most;
  for (const std::string& it : commands) {
    const bool begins = word.size() >= 2 && it.rfind(word, 0) == 0;
    const size_t distance = begins ? 1 : edit_distance(word, it);
    if (distance > least) continue;
    if (distance < least) near.clear();
    least = distance;
    near.push_back(it);
  }
  if (near.empty()) return message;
  return fmt::format("{}: did you mean {}?", message, join_words(near, " or "));
}

}  // namespace vc::tool
