#include "guest/filesystem/swap_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <sstream>

#include "base/rounding.h"
#include "guest/filesystem/swap.h"

namespace vc::guest {

namespace {

// Linux uses at most 32.
constexpr unsigned kMostSwapFiles = 32;

Result<std::string> fstab_of(const GuestFiles& files) {
  ASSIGN_OR_RETURN(const auto file, files.find("/etc/fstab"));
  if (!file) return std::string();
  if (file->is_symbolic_link) return doubt("its /etc/fstab is a symbolic link");
  if (!file->is_file || file->size > kLargestFstab) return std::string();
  ASSIGN_OR_RETURN(const Block text, files.read(*file, 0, kLargestFstab));
  return std::string(text.fields().text(0, text.bytes().size()));
}

// Returns the blocks of the volume that hold the file from byte `begin` on.
Result<Ranges> blocks_from(const MappedFile& file, uint64_t begin, uint64_t block_size,
                           const std::string& path) {
  const uint64_t first = divide_up(begin, block_size);
  Ranges::Builder builder;
  uint64_t count = 0;
  for (const FileRun& run : file.runs) {
    if (run.logical + run.length <= first) continue;
    const uint64_t skipped = run.logical < first ? first - run.logical : 0;
    builder.add(run.block + skipped, run.block + run.length);
    count += run.length - skipped;
  }
  Ranges blocks = builder.take();
  if (blocks.total() != count) return doubt(fmt::format("its {} uses a block twice", path));
  return blocks;
}

// Returns nullopt if it is not a swap file. The contents are in blocks.
Result<std::optional<FoundFile>> swap_file(const GuestFiles& files, const std::string& path,
                                           Ranges::Builder& own) {
  ASSIGN_OR_RETURN(const auto mapped, files.find(path));
  if (!mapped || !mapped->is_file) return std::optional<FoundFile>();
  ASSIGN_OR_RETURN(const Block head, files.read(*mapped, 0, kSwapKept));
  if (!kSwap.probe(head.fields())) return std::optional<FoundFile>();
  if (has_saved_session(head.fields()))
    return doubt(fmt::format("its {} holds a saved session", path));
  if (mapped->may_share) return doubt(fmt::format("its {} may share blocks with a copy", path));
  ASSIGN_OR_RETURN(const uint64_t end, swap_end(head.fields(), mapped->size));
  if (mapped->size - end >= kSwapKept)
    return doubt(fmt::format("its {} is longer than the swap space in it", path));
  FoundFile file;
  file.path = path;
  file.size = mapped->size;
  ASSIGN_OR_RETURN(file.contents, blocks_from(*mapped, kSwapKept, files.block_size(), path));
  for (const uint64_t block : mapped->map_blocks) own.add(block, block + 1);
  return std::optional(std::move(file));
}

}  // namespace

std::vector<std::string> swap_file_paths(std::string_view fstab) {
  std::vector<std::string> paths{"/swapfile", "/swap.img", "/swap/swapfile", "/var/swap"};
  const size_t usual = paths.size();
  std::istringstream lines{std::string(fstab)};
  for (std::string line; std::getline(lines, line) && paths.size() < usual + kMostSwapFiles;) {
    std::istringstream words(line);
    std::string what, where, type;
    if (words >> what >> where >> type && type == "swap" && what.starts_with("/") &&
        !what.starts_with("/dev/"))
      paths.push_back(what);
  }
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

Result<std::vector<FoundFile>> find_swap_files(const GuestFiles& files, const Ranges& free,
                                               const Ranges& metadata) {
  ASSIGN_OR_RETURN(const std::string fstab, fstab_of(files));
  std::vector<FoundFile> found;
  Ranges::Builder all;
  Ranges::Builder maps;
  uint64_t count = 0;
  for (const std::string& path : swap_file_paths(fstab)) {
    ASSIGN_OR_RETURN(auto file, swap_file(files, path, maps));
    if (!file) continue;
    for (const Range& range : file->contents.all()) all.add(range.begin, range.end);
    count += file->contents.total();
    found.push_back(std::move(*file));
  }
  const Ranges taken = all.take();
  if (taken.total() != count) return doubt("two of its swap files share a block");
  const Ranges own = maps.take();
  if (!taken.with(own).scaled(files.block_size(), 0).within(free).empty())
    return doubt("its metadata mark a block of a swap file as free");
  if (!taken.within(metadata).empty() || !taken.within(own).empty())
    return doubt("a swap file uses a block of the metadata");
  for (FoundFile& file : found) file.contents = file.contents.scaled(files.block_size(), 0);
  return found;
}

}  // namespace vc::guest
