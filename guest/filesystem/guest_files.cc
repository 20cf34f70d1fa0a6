#include "guest/filesystem/guest_files.h"

#include <algorithm>

namespace vc::guest {

namespace {

// Most extents of one file: enough for 4 TiB in pieces of 4 MiB.
constexpr size_t kMostRuns = 1 << 20;
// Most directory data to read, for the paths of all files.
constexpr uint64_t kMostSearched = 256 << 20;  // bytes

}  // namespace

bool MappedFile::add(const FileRun& run) {
  const uint64_t expected = runs.empty() ? 0 : runs.back().logical + runs.back().length;
  if (run.length == 0 || run.logical < expected || run.logical + run.length < run.logical)
    return false;
  if (!runs.empty() && run.logical == expected && run.is_written == runs.back().is_written &&
      run.block == runs.back().block + runs.back().length) {
    runs.back().length += run.length;
    return true;
  }
  if (runs.size() == kMostRuns) return false;
  runs.push_back(run);
  return true;
}

const FileRun* MappedFile::run_of(uint64_t logical) const {
  const auto run = std::partition_point(runs.begin(), runs.end(), [logical](const FileRun& it) {
    return it.logical + it.length <= logical;
  });
  return run != runs.end() && run->logical <= logical ? &*run : nullptr;
}

Result<Block> GuestFiles::read(const MappedFile& file, uint64_t at, uint64_t length) const {
  if (at >= file.size) return Block(0);
  Block bytes(std::min(length, file.size - at));
  const uint64_t end = at + bytes.bytes().size();
  while (at < end) {
    const uint64_t logical = at / block_size_;
    const FileRun* const run = file.run_of(logical);
    const uint64_t blocks = run ? run->logical + run->length - logical : 1;
    const uint64_t offset = at % block_size_;
    const uint64_t here = std::min(end - at, blocks * block_size_ - offset);
    if (run && run->is_written)
      RETURN_IF_ERROR(view_.read((run->block + (logical - run->logical)) * block_size_ + offset,
                                 bytes.bytes().subspan(bytes.bytes().size() - (end - at), here)));
    at += here;
  }
  return bytes;
}

Result<void> GuestFiles::count_directory(uint64_t bytes) const {
  if (bytes > kMostSearched - searched_)
    return doubt("its directories are too large to search for swap files here");
  searched_ += bytes;
  return {};
}

}  // namespace vc::guest
