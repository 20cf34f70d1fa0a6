#include "copy/source/cloning.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "base/aligned_buffer.h"

namespace vc::copy {

namespace {

// Most filesystems accept blocks of this size, also those that recommend larger ones.
constexpr uint64_t kUsualBlock = 4 << 10;
constexpr uint64_t kLargestBlock = 2 << 20;
constexpr uint64_t kCopyAtOnce = 1 << 20;
// Runs that wait to be cloned: they take memory, and a stopped copy clones as many.
constexpr size_t kMostWaiting = 4096;

// Returns true if another way of copying would meet the same error.
bool is_final(int errnum) {
  return errnum == EIO || errnum == ENOMEM;
}

}  // namespace

Result<std::unique_ptr<Cloning>> Cloning::create(
    OutputFile& out, const Options& options, std::span<const std::shared_ptr<FileStorage>> files) {
  if (options.mode == Reflink::kNever) return std::unique_ptr<Cloning>();
  std::unique_ptr<Cloning> it(new Cloning(out, options));
  ASSIGN_OR_RETURN(const uint64_t preferred, out.block_size());
  std::vector<uint64_t> blocks{kUsualBlock};
  if (preferred > kUsualBlock && preferred <= kLargestBlock && std::has_single_bit(preferred))
    blocks.push_back(preferred);
  bool can = false;
  bool failed = false;
  Error reason = Error::invalid("there is no file to clone");
  for (const auto& file : files) {
    ASSIGN_OR_RETURN(const uint64_t size, file->size());
    if (size < kUsualBlock) continue;  // has no block to clone
    auto tried = it->try_file(*file, blocks.front());
    if (!tried && !can && tried.error().errnum() == EINVAL && blocks.size() > 1) {
      tried = it->try_file(*file, blocks.back());
      if (tried) std::swap(blocks.front(), blocks.back());
    }
    if (tried && !can) it->block_ = blocks.front();
    can = can || tried.has_value();
    failed = failed || !tried;
    if (!tried) reason = tried.error();
    it->learn(*file, tried.has_value(), tried ? Error::cancelled() : tried.error());
  }
  RETURN_IF_ERROR(out.resize(0));
  if (can) return it;
  if (failed && options.mode == Reflink::kAlways) return fail(std::move(reason));
  return std::unique_ptr<Cloning>();
}

// Clones the first block, into an empty file.
Result<void> Cloning::try_file(const FileStorage& file, uint64_t block) {
  if (file.is_block_device())
    return fail(Error::system(
        EINVAL, out_.name() + ": failed to clone " + file.name() + ", which is a block device"));
  return out_.clone(file, HostOffset(0), block, HostOffset(0));
}

Cloning::Known* Cloning::find(const FileStorage& file) {
  const auto it = std::find_if(known_.begin(), known_.end(),
                               [&](const Known& known) { return known.file == file.identity(); });
  return it == known_.end() ? nullptr : &*it;
}

const Cloning::Known* Cloning::find(const FileStorage& file) const {
  const auto it = std::find_if(known_.begin(), known_.end(),
                               [&](const Known& known) { return known.file == file.identity(); });
  return it == known_.end() ? nullptr : &*it;
}

void Cloning::learn(const FileStorage& file, bool can, Error reason) {
  const MutexLock lock(mutex_);
  Known* known = find(file);
  if (!known) known = &known_.emplace_back(Known{file.identity(), can, false, reason});
  if (can) {
    known->has = true;
  } else {
    known->can = false;
    known->reason = std::move(reason);
  }
}

bool Cloning::can_clone(const FileStorage& file) const {
  if (file.is_block_device()) return false;
  const MutexLock lock(mutex_);
  const Known* const known = find(file);
  return !known || known->can;
}

bool Cloning::is_proven(const FileStorage& file) const {
  const MutexLock lock(mutex_);
  const Known* const known = find(file);
  return known && known->can && known->has;
}

Error Cloning::reason(const FileStorage& file) const {
  const MutexLock lock(mutex_);
  const Known* const known = find(file);
  if (known && !known->can) return known->reason;
  return Error::system(EINVAL, out_.name() + ": failed to clone " + file.name());
}

Result<void> Cloning::share(const Run& run) {
  if (can_clone(*run.from)) {
    auto cloned = out_.clone(*run.from, run.at, run.length, run.to);
    if (cloned) {
      cloned_ += run.length;
      learn(*run.from, true, Error::cancelled());
      return {};
    }
    if (is_demanded() || is_final(cloned.error().errnum())) return cloned;
    learn(*run.from, false, cloned.error());
  }
  return copy(run);
}

// Reads and writes.  copy_file_range(2) was measured: where it shares no blocks, as on ext4, the
// kernel's copy takes 1.0 to 1.3 times as long as this loop does with a buffer in the cache.
Result<void> Cloning::copy(const Run& run) {
  AlignedBuffer buffer(std::min(run.length, kCopyAtOnce));
  for (uint64_t done = 0; done < run.length;) {
    const auto part = buffer.span().first(std::min<uint64_t>(buffer.size(), run.length - done));
    RETURN_IF_ERROR(read_fully(*run.from, run.at + done, part));
    RETURN_IF_ERROR(out_.write(run.to + done, part));
    done += part.size();
  }
  return {};
}

std::vector<Cloning::Run> Cloning::runs_of(const Chunk& chunk) const {
  const uint64_t cluster_size = options_.cluster_size;
  std::vector<Run> runs;
  for (const Chunk::Piece& piece : chunk.pieces) {
    for (uint64_t at = piece.begin; at < piece.end;) {
      const Chunk::Cluster& cluster = chunk.clusters[at / cluster_size];
      const uint64_t stop = std::min(piece.end, (at / cluster_size + 1) * cluster_size);
      const Run part{piece.from, piece.at + (at - piece.begin), stop - at,
                     cluster.host + at % cluster_size};
      at = stop;
      if (cluster.kind != Chunk::Cluster::Kind::kData || cluster.clone != Chunk::Clone::kYes)
        continue;
      Run* const last = runs.empty() ? nullptr : &runs.back();
      if (last && last->from == part.from && last->at + last->length == part.at &&
          last->to + last->length == part.to)
        last->length += part.length;
      else
        runs.push_back(part);
    }
  }
  return runs;
}

// The kernel locks both files for a clone. So clones wait for each other, and reads of the source
// wait for them: many clones in a row are faster than clones between reads.
Result<void> Cloning::write(const Chunk& chunk) {
  const std::vector<Run> runs = runs_of(chunk);
  const MutexLock lock(waiting_mutex_);
  waiting_.insert(waiting_.end(), runs.begin(), runs.end());
  return waiting_.size() < kMostWaiting ? Result<void>{} : share_waiting();
}

Result<void> Cloning::finish() {
  const MutexLock lock(waiting_mutex_);
  return share_waiting();
}

// Holds the lock meanwhile, so that other threads do not read much.
Result<void> Cloning::share_waiting() {
  const std::vector<Run> runs = std::exchange(waiting_, {});
  for (const Run& run : runs) RETURN_IF_ERROR(share(run));
  return {};
}

}  // namespace vc::copy
