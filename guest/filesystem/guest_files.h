// Reads files of a filesystem that stores contents in blocks of the volume.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "guest/reading/block.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/reading.h"

namespace vc::guest {

// Consecutive blocks of a file that are consecutive on the volume.
struct FileRun {
  uint64_t logical;        // number of the first block in the file
  uint64_t block;          // number of the first block on the volume
  uint64_t length;         // blocks
  bool is_written = true;  // false: allocated blocks that read as zeros
};

struct MappedFile {
  uint64_t number = 0;  // of the inode
  uint64_t size = 0;    // bytes
  bool is_directory = false;
  bool is_file = false;
  bool is_symbolic_link = false;
  bool may_share = false;            // may share blocks with other files
  std::vector<FileRun> runs;         // ordered by `logical`; gaps are holes
  std::vector<uint64_t> map_blocks;  // blocks that store the map itself

  // Appends a run. Returns false if it overlaps an earlier run, or if there are too many runs.
  bool add(const FileRun& run);
  // Returns the run that contains a block of the file. nullptr for a hole.
  const FileRun* run_of(uint64_t logical) const;
};

class GuestFiles {
 public:
  // `view` must outlive the object.
  GuestFiles(const ByteView& view, uint64_t block_size) : view_(view), block_size_(block_size) {}
  virtual ~GuestFiles() = default;

  uint64_t block_size() const { return block_size_; }  // bytes
  // Finds the file with an absolute path. Returns nullopt if there is none. A symbolic link is an
  // error, except at the end of the path: then the link is returned.
  virtual Result<std::optional<MappedFile>> find(std::string_view path) const = 0;
  // Returns up to `length` bytes of a file, from `at` on. Holes read as zeros.
  Result<Block> read(const MappedFile& file, uint64_t at, uint64_t length) const;

 protected:
  const ByteView& view() const { return view_; }
  // Must be called before `bytes` of a directory are searched. Returns an error if all searches
  // together exceed a limit.
  Result<void> count_directory(uint64_t bytes) const;
  // Follows `path` from the root. `child` returns the file with a given name in a directory.
  template <typename Inode, typename Child>
  static Result<std::optional<Inode>> follow(Inode root, std::string_view path, const Child& child);

 private:
  static constexpr unsigned kMostNames = 40;  // in a path

  const ByteView& view_;
  const uint64_t block_size_;
  mutable uint64_t searched_ = 0;  // bytes of directories
};

template <typename Inode, typename Child>
Result<std::optional<Inode>> GuestFiles::follow(Inode root, std::string_view path,
                                                const Child& child) {
  std::optional<Inode> at(std::move(root));
  unsigned names = 0;
  while (at && !path.empty()) {
    const size_t begin = std::min(path.find_first_not_of('/'), path.size());
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view name = path.substr(begin, end - begin);
    path.remove_prefix(end);
    if (name.empty()) break;
    if (at->is_symbolic_link || ++names > kMostNames)
      return doubt("a symbolic link leads to a swap file");
    if (!at->is_directory) return std::optional<Inode>();
    ASSIGN_OR_RETURN(at, child(*at, name));
  }
  return at;
}

}  // namespace vc::guest
