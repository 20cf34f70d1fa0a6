#include "tool/commands/foreign_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "tool/text/join_words.h"
#include "tool/text/shell_words.h"

namespace vc::tool {

namespace {

struct Foreign {
  const char* word;
  // The command that does the same with the same arguments; nullptr if there is none.
  const char* same;
  const char* advice;  // after it, or alone
};

// Commands of qemu-img, the virt-* tools and other disk programs.
constexpr std::array kForeign{
    Foreign{"amend", "qemu-img amend",
            "a copy with another layout is virt-compact copy -o LIST SRC DST"},
    Foreign{"backup", nullptr, "virt-compact copy SRC DST"},
    Foreign{"bitmap", "qemu-img bitmap", "virt-compact info lists bitmaps"},
    Foreign{
        "blockpull", nullptr,
        "virt-compact flatten OVERLAY DST, when the guest is shut down; virsh blockpull while it "
        "runs"},
    Foreign{"clean", nullptr, "virt-compact optimize DISK"},
    Foreign{"clone", nullptr, "virt-compact copy SRC DST"},
    Foreign{
        "commit", "qemu-img commit",
        "it writes an overlay into its backing file; virt-compact flatten OVERLAY DST merges them "
        "into a fresh image"},
    Foreign{"compress", nullptr, "virt-compact copy -c SRC DST"},
    Foreign{"convert", "virt-compact copy", "it accepts the options of qemu-img convert"},
    Foreign{"cp", "virt-compact copy", ""},
    Foreign{"create", "qemu-img create",
            "or nbdkit qcow2 FILE create=true size=SIZE, which also serves the empty image"},
    Foreign{"dd", "qemu-img dd",
            "it copies a part of a disk; a whole disk: virt-compact copy SRC DST"},
    Foreign{"decrypt", nullptr, "virt-compact copy --decrypt --key disk:file:PATH SRC DST"},
    Foreign{"defrag", nullptr, "virt-compact optimize DISK"},
    Foreign{"defragment", nullptr, "virt-compact optimize DISK"},
    Foreign{"df", nullptr, "virt-compact space DISK"},
    Foreign{"diff", "virt-compact compare", ""},
    Foreign{"discard", nullptr, "virt-compact trim DISK"},
    Foreign{"du", nullptr, "virt-compact info FILE"},
    Foreign{"encrypt", nullptr,
            "virt-compact copy --object secret,id=ID,file=PATH -o "
            "encrypt.format=luks,encrypt.key-secret=ID SRC DST"},
    Foreign{
        "export", nullptr,
        "nbdkit qcow2 DISK serves a disk; virt-compact snapshot --export NAME DISK DST copies a "
        "snapshot"},
    Foreign{"fsck", nullptr, "virt-compact check FILE"},
    Foreign{"fstrim", nullptr, "virt-compact trim DISK"},
    Foreign{"inspect", nullptr, "virt-compact info FILE"},
    Foreign{"ls", nullptr, "virt-compact info FILE"},
    Foreign{"merge", nullptr, "virt-compact flatten OVERLAY DST"},
    Foreign{"mount", nullptr, "guestmount mounts a disk; nbdkit qcow2 DISK serves it"},
    Foreign{"nbdcopy", "virt-compact copy", ""},
    Foreign{"repair", nullptr, "virt-compact check -r all FILE"},
    Foreign{"resize", "qemu-img resize",
            "virt-resize also changes its partitions; virt-compact optimize DISK makes the file "
            "smaller"},
    Foreign{"restore", nullptr, "virt-compact rollback DISK"},
    Foreign{"revert", nullptr, "virt-compact rollback DISK, or virt-compact snapshot -a NAME DISK"},
    Foreign{"serve", nullptr, "nbdkit qcow2 DISK"},
    Foreign{"shrink", nullptr,
            "virt-compact optimize DISK, which makes the file smaller, not the disk"},
    Foreign{"sparsify", nullptr, "virt-compact optimize DISK (in place: virt-compact trim DISK)"},
    Foreign{"undo", nullptr,
            "virt-compact rollback DISK, or virt-compact check --apply-undo UNDO FILE"},
    Foreign{"verify", nullptr, "virt-compact compare A B, or virt-compact check --deep FILE"},
    Foreign{"version", nullptr, "virt-compact --version"},
    Foreign{"virt-df", nullptr, "virt-compact space DISK"},
    Foreign{"virt-sparsify", nullptr,
            "virt-compact optimize DISK (in place: virt-compact trim DISK)"}};

std::string advice(const Foreign& foreign, const std::vector<std::string>& arguments) {
  if (foreign.same == nullptr) return foreign.advice;
  const bool ours = std::string_view(foreign.same).substr(0, 4) == "virt";
  std::string text = std::string(ours ? "use " : "qemu-img does this: ") + foreign.same;
  if (!arguments.empty()) text += " " + shell_words(arguments);
  return *foreign.advice == '\0' ? text : fmt::format("{} ({})", text, foreign.advice);
}

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

namespace {

// `words`: those after "qemu-img".
std::string qemu_img_message(const std::vector<std::string>& words,
                             const std::vector<std::string>& commands) {
  if (std::find(commands.begin(), commands.end(), words.front()) != commands.end())
    return fmt::format("unknown command 'qemu-img': use virt-compact {}", shell_words(words));
  return unknown_command_message(words.front(), {words.begin() + 1, words.end()}, commands);
}

}  // namespace

std::string unknown_command_message(const std::string& word,
                                    const std::vector<std::string>& arguments,
                                    const std::vector<std::string>& commands) {
  if (word == "qemu-img" && !arguments.empty()) return qemu_img_message(arguments, commands);
  std::string message = fmt::format("unknown command '{}'", word);
  for (const Foreign& it : kForeign)
    if (word == it.word) return fmt::format("{}: {}", message, advice(it, arguments));
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
