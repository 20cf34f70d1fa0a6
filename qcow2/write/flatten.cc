#include "qcow2/write/flatten.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/retry.h"
#include "base/took_effect.h"
#include "base/zero_bytes.h"
#include "qcow2/write/backing_name.h"
#include "qcow2/write/chain_writer.h"

namespace vc::qcow2 {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

constexpr size_t kExtentsAtOnce = 4096;
constexpr uint64_t kReadSize = 2 << 20;  // bytes per read; a multiple of any cluster size

// The share of tables and counts in the data written.
constexpr uint64_t kMetadataPart = 1000;

// `AnyDisk` is the disk to read and map: a DiskWriter, or a Disk in a dry run.
template <typename AnyDisk>
class Flattening {
 public:
  Flattening(const std::string& path, AnyDisk& disk, uint64_t cluster_size, Progress& progress,
             const Cancel& cancel)
      : path_(path),
        disk_(disk),
        cluster_size_(cluster_size),
        progress_(progress),
        cancel_(cancel),
        buffer_(kReadSize) {}

  // Returns an error if the data to be written does not fit.
  Result<void> check_free_space() {
    struct statvfs status {};
    if (retry(::statvfs, path_.c_str(), &status) != 0) return fail(Error::system(errno, path_));
    const uint64_t free = uint64_t{status.f_bavail} * status.f_frsize;
    uint64_t stored = 0;
    RETURN_IF_ERROR(each_inherited([&](GuestOffset, uint64_t length) -> Result<void> {
      // The image may own parts of the first and the last cluster.
      stored += length + 2 * cluster_size_;
      return {};
    }));
    if (with_metadata(stored) <= free) return {};
    // Then reading everything is worthwhile: zeros need no space.
    uint64_t needed = 0;
    const auto add = [&](GuestOffset, std::span<const std::byte> run) -> Result<void> {
      needed += run.size() + cluster_size_;
      return {};
    };
    RETURN_IF_ERROR(
        each_inherited([&](GuestOffset at, uint64_t length) { return each_run(at, length, add); }));
    if (with_metadata(needed) <= free) return {};
    return fail(Error::system(
        ENOSPC,
        fmt::format("{}: up to {} bytes must be written, but its filesystem has only {} free",
                    path_, with_metadata(needed), free)));
  }

  // Calls `put (at, bytes)` to write.
  template <typename Put>
  Result<void> run(FlattenSummary& summary, Put put) {
    const uint64_t size = disk_.size();
    uint64_t data = 0;
    const auto write = [&](GuestOffset at, std::span<const std::byte> run) {
      data += run.size();
      return put(at, run);
    };
    const auto take = [&](GuestOffset at, uint64_t length) {
      data = 0;
      auto written = each_run(at, length, write);
      summary.written += data;
      summary.zeros += length - data;
      progress_.update(at.value() + length, size);
      return written;
    };
    RETURN_IF_ERROR(each_inherited(take));
    progress_.update(size, size);
    return {};
  }

 private:
  static uint64_t with_metadata(uint64_t bytes) {
    return bytes + bytes / kMetadataPart + (1 << 20);
  }

  // Calls `visit (at, length)` for pieces of the data that the backing chain stores and the disk
  // reads.
  template <typename Visit>
  Result<void> each_inherited(Visit visit) {
    const uint64_t size = disk_.size();
    std::vector<Extent> extents;
    for (GuestOffset at(0); at.value() < size;) {
      extents.clear();
      RETURN_IF_ERROR(disk_.map(at, size - at.value(), extents, kExtentsAtOnce));
      for (const Extent& extent : extents) {
        if (extent.depth == 0 || extent.reads_as_zero()) continue;
        for (GuestOffset begin = extent.guest; begin < extent.end();) {
          if (cancel_.requested()) return fail(Error::cancelled());
          // Pieces end at cluster boundaries.
          const uint64_t end =
              std::min(extent.end().value(), (begin.value() / kReadSize + 1) * kReadSize);
          RETURN_IF_ERROR(visit(begin, end - begin.value()));
          begin = GuestOffset(end);
        }
      }
      at = extents.back().end();
    }
    return {};
  }

  // Reads a piece, and calls `visit` for each run of nonzero clusters in it.
  template <typename Visit>
  Result<void> each_run(GuestOffset at, uint64_t length, Visit visit) {
    const std::span<std::byte> bytes = std::span(buffer_).first(length);
    RETURN_IF_ERROR(disk_.read(at, bytes));
    uint64_t begin = 0;
    for (uint64_t from = 0; from < length;) {
      const uint64_t in_cluster = (at.value() + from) % cluster_size_;
      const uint64_t to = std::min(length, from + cluster_size_ - in_cluster);
      if (is_zero(bytes.subspan(from, to - from))) {
        if (begin < from) RETURN_IF_ERROR(visit(at + begin, bytes.subspan(begin, from - begin)));
        begin = to;
      }
      from = to;
    }
    if (begin < length) return visit(at + begin, bytes.subspan(begin));
    return {};
  }

  const std::string& path_;
  AnyDisk& disk_;
  const uint64_t cluster_size_;
  Progress& progress_;
  const Cancel& cancel_;
  std::vector<std::byte> buffer_;
};

Result<FileSize> measure(const std::string& path) {
  struct stat status {};
  if (retry(::stat, path.c_str(), &status) != 0) return fail(Error::system(errno, path));
  return FileSize::of(status);
}

// Encrypted data of a backing file must not become unencrypted data of an image.
Result<void> check_stays_encrypted(const qcow2::Chain& chain) {
  if (chain.encryptions().front()) return {};
  for (size_t i = 1; i < chain.layers().size(); ++i)
    if (chain.encryptions()[i])
      return fail(Error::unsupported(fmt::format(
          "{}: is not encrypted, and its backing file {} is: copy it into a new image instead "
          "(virt-compact copy -o encrypt.format=luks,... or --decrypt)",
          chain.layers().front()->name(), chain.layers()[i]->name())));
  return {};
}

Result<void> check_can_be_flat(const std::string& path, const qcow2::Chain& chain) {
  if (!chain.image())
    return fail(Error::invalid(path + ": is a raw file, which has no backing file"));
  if (chain.image()->header().backing_file.empty())
    return fail(Error::invalid(path + ": has no backing file, so there is nothing to flatten"));
  RETURN_IF_ERROR(check_stays_encrypted(chain));
  const size_t snapshots = chain.image()->snapshots().size();
  if (snapshots == 0) return {};
  return fail(Error::unsupported(fmt::format(
      "{}: has {} internal snapshot{}, which would lose {} backing file: flatten it "
      "into a new image, which keeps snapshots, or delete {} first (virt-compact snapshot -d)",
      path, snapshots, snapshots == 1 ? "" : "s", snapshots == 1 ? "its" : "their",
      snapshots == 1 ? "it" : "them")));
}

// The backing file is no longer needed from here on, even if the change is not on disk yet.
Result<void> drop_name(const std::string& path, Storage& storage) {
  auto dropped = qcow2::drop_backing_name(storage);
  if (dropped) return dropped;
  const auto now = qcow2::Header::read(storage, qcow2::Header::Purpose::kTell);
  if (!now || !now->backing_file.empty()) return with_context(std::move(dropped), path);
  return took_effect(std::move(dropped),
                     path + " holds all data of its disk, and has no backing file");
}

// Opens an image that can be flattened, and sets what `summary` says of it.
Result<qcow2::Chain> open_overlay(const std::string& path, std::optional<qcow2::Format> format,
                                  const qcow2::Trust& trust, bool writable,
                                  FlattenSummary& summary) {
  qcow2::OpenOptions options;
  options.format = format;
  options.writable = writable;
  options.trust = trust;
  ASSIGN_OR_RETURN(auto chain, qcow2::Chain::open(path, options));
  RETURN_IF_ERROR(check_can_be_flat(path, chain));
  summary.backing_file = chain.image()->header().backing_file;
  ASSIGN_OR_RETURN(summary.before, measure(path));
  return chain;
}

}  // namespace

Result<FlattenSummary> flatten(const std::string& path, std::optional<qcow2::Format> format,
                               const qcow2::Trust& trust, Progress& progress,
                               const Cancel& cancel) {
  const auto start = std::chrono::steady_clock::now();
  FlattenSummary summary;
  ASSIGN_OR_RETURN(const auto chain, open_overlay(path, format, trust, true, summary));
  qcow2::DiskWriter::Options moving;
  moving.keeps_content = true;
  ASSIGN_OR_RETURN(const auto writer, open_writer(chain, moving));
  summary.virtual_size = writer->size();

  Flattening work(path, *writer, chain.image()->geometry().cluster_size(), progress, cancel);
  if (auto enough = work.check_free_space(); !enough) {
    (void)writer->close();
    return fail(enough.error());
  }
  auto done = work.run(summary, [&](GuestOffset at, std::span<const std::byte> run) {
    return writer->write(at, run);
  });
  // Closes after an error, too: the image then has some more data of its own, and still its backing
  // file.
  auto closed = writer->close();
  if (!done)
    return fail(Error(done.error())
                    .with_context(path + ": still needs its backing file, and its content is "
                                         "unchanged: run the command again to continue"));
  RETURN_IF_ERROR(closed);
  RETURN_IF_ERROR(drop_name(path, *chain.storage()));
  ASSIGN_OR_RETURN(
      summary.after,
      took_effect(measure(path), path + " holds all data of its disk, and has no backing file"));
  summary.elapsed = std::chrono::steady_clock::now() - start;
  return summary;
}

Result<FlattenSummary> predict_flatten(const std::string& path, std::optional<qcow2::Format> format,
                                       const qcow2::Trust& trust, Progress& progress,
                                       const Cancel& cancel) {
  const auto start = std::chrono::steady_clock::now();
  FlattenSummary summary;
  ASSIGN_OR_RETURN(const auto chain, open_overlay(path, format, trust, false, summary));
  const qcow2::Disk disk = chain.disk();
  summary.virtual_size = disk.size();
  Flattening work(path, disk, chain.image()->geometry().cluster_size(), progress, cancel);
  RETURN_IF_ERROR(work.check_free_space());
  RETURN_IF_ERROR(
      work.run(summary, [](GuestOffset, std::span<const std::byte>) { return Result<void>(); }));
  summary.elapsed = std::chrono::steady_clock::now() - start;
  return summary;
}

}  // namespace vc::qcow2
