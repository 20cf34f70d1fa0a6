#include "guest/filesystem/ext_swap_files.h"

#include <fmt/format.h>

#include <optional>
#include <string>

#include "guest/filesystem/swap.h"
#include "guest/filesystem/swap_files.h"

namespace vc::guest {

namespace {

Result<std::string> fstab_of(const ExtFiles& files) {
  ASSIGN_OR_RETURN(const auto inode, files.find("/etc/fstab"));
  if (!inode) return std::string();
  if (inode->is_symbolic_link) return doubt("its /etc/fstab is a symbolic link");
  if (!inode->is_file || inode->size > kLargestFstab) return std::string();
  ASSIGN_OR_RETURN(const Block text, files.read(*inode, kLargestFstab));
  return std::string(text.fields().text(0, text.bytes().size()));
}

// Blocks of the file from `begin` on, in bytes of the file.
Result<Ranges> blocks_from(const ExtInode& inode, uint64_t begin, uint64_t block_size,
                           const std::string& path) {
  const uint64_t first = divide_up(begin, block_size);
  Ranges::Builder builder;
  uint64_t count = 0;
  for (const ExtRun& run : inode.runs) {
    if (run.logical + run.length <= first) continue;
    const uint64_t skipped = run.logical < first ? first - run.logical : 0;
    builder.add(run.block + skipped, run.block + run.length);
    count += run.length - skipped;
  }
  Ranges blocks = builder.take();
  if (blocks.total() != count) return doubt(fmt::format("its {} uses a block twice", path));
  return blocks;
}

// Nothing if it is no swap file.
Result<std::optional<FoundFile>> swap_file(const ExtFiles& files, const ExtSuperblock& super,
                                           const std::string& path, Ranges::Builder& own) {
  ASSIGN_OR_RETURN(const auto inode, files.find(path));
  if (!inode || !inode->is_file) return std::optional<FoundFile>();
  ASSIGN_OR_RETURN(const Block head, files.read(*inode, kSwapKept));
  if (!kSwap.probe(head.fields())) return std::optional<FoundFile>();
  if (has_saved_session(head.fields()))
    return doubt(fmt::format("its {} holds a saved session", path));
  ASSIGN_OR_RETURN(const uint64_t end, swap_end(head.fields(), inode->size));
  if (inode->size - end >= kSwapKept)
    return doubt(fmt::format("its {} is longer than the swap space in it", path));
  FoundFile file;
  file.path = path;
  file.size = inode->size;
  ASSIGN_OR_RETURN(file.contents, blocks_from(*inode, kSwapKept, super.block_size, path));
  for (const uint64_t block : inode->map_blocks) own.add(block, block + 1);
  return std::optional(std::move(file));
}

}  // namespace

Result<std::vector<FoundFile>> find_ext_swap_files(const ExtFiles& files,
                                                   const ExtSuperblock& super, const Ranges& free,
                                                   const Ranges& metadata) {
  ASSIGN_OR_RETURN(const std::string fstab, fstab_of(files));
  std::vector<FoundFile> found;
  Ranges::Builder all;
  Ranges::Builder maps;
  uint64_t count = 0;
  for (const std::string& path : swap_file_paths(fstab)) {
    ASSIGN_OR_RETURN(auto file, swap_file(files, super, path, maps));
    if (!file) continue;
    for (const Range& range : file->contents.all()) all.add(range.begin, range.end);
    count += file->contents.total();
    found.push_back(std::move(*file));
  }
  const Ranges taken = all.take();
  if (taken.total() != count) return doubt("two of its swap files share a block");
  if (!taken.within(free).empty()) return doubt("its bitmaps mark a block of a swap file as free");
  if (!taken.within(metadata).empty() || !taken.within(maps.take()).empty())
    return doubt("a swap file uses a block of the metadata");
  for (FoundFile& file : found) file.contents = file.contents.scaled(super.block_size, 0);
  return found;
}

}  // namespace vc::guest
