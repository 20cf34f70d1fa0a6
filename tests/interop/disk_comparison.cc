#include "tests/interop/disk_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string_view>
#include <thread>

namespace vc::interop {

using qcow2::Disk;
using qcow2::Extent;
using qcow2::ExtentKind;
using support::Random;
using support::RawFile;

namespace {

// Largest piece of one read, bytes.
constexpr uint64_t kPiece = 1 << 20;

const char* name_of(ExtentKind kind) {
  switch (kind) {
    case ExtentKind::kData:
      return "data";
    case ExtentKind::kCompressed:
      return "compressed";
    case ExtentKind::kZero:
      return "zero";
    case ExtentKind::kUnallocated:
      return "unallocated";
  }
  return "?";
}

std::string describe(const Extent& extent) {
  return fmt::format("[{}, +{}) {}{} depth {} host {:#x}", extent.guest.value(), extent.length,
                     name_of(extent.kind), extent.preallocated ? " preallocated" : "", extent.depth,
                     extent.host.value());
}

std::string describe(const MapEntry& entry) {
  return fmt::format("[{}, +{}) depth {}{}{}{} offset {}", entry.start, entry.length, entry.depth,
                     entry.present ? " present" : "", entry.zero ? " zero" : "",
                     entry.data ? " data" : "",
                     entry.offset ? fmt::format("{:#x}", *entry.offset) : "none");
}

std::string differ_complaint(std::span<const std::byte> got, std::span<const std::byte> want,
                             uint64_t at) {
  const auto differ = std::mismatch(got.begin(), got.end(), want.begin());
  if (differ.first == got.end()) return {};
  const auto index = static_cast<size_t>(differ.first - got.begin());
  return fmt::format("read of [{}, +{}): at {} there is {:#04x}, it should be {:#04x}", at,
                     got.size(), at + index, std::to_integer<unsigned>(got[index]),
                     std::to_integer<unsigned>(want[index]));
}

std::string read_piece(const Disk& disk, const RawFile& truth, uint64_t at, uint64_t length) {
  std::vector<std::byte> got(length, std::byte{0xa5});
  if (const auto done = disk.read(GuestOffset(at), got); !done)
    return fmt::format("read of [{}, +{}): {}", at, length, done.error().message());
  return differ_complaint(got, truth.read(at, length), at);
}

// Reads random pieces, most of them where there is data.
std::string read_random_pieces(const Disk& disk, const RawFile& truth, unsigned count,
                               Random& random) {
  for (unsigned i = 0; i < count; ++i) {
    uint64_t at = random.below(disk.size());
    if (random.chance(70)) {
      if (const auto run = truth.next_data(at, disk.size()))
        at = run->begin + random.below(run->end - run->begin);
      at -= std::min(at, random.chance(30) ? random.below(65536) : 0);
    }
    uint64_t length = random.between(1, random.chance(50) ? 5000 : 300'000);
    length = std::min(length, disk.size() - at);
    if (auto complaint = read_piece(disk, truth, at, length); !complaint.empty()) return complaint;
  }
  return {};
}

}  // namespace

std::string cover_complaint(const std::vector<Extent>& extents, uint64_t begin, uint64_t end,
                            const RawFile& truth) {
  uint64_t at = begin;
  for (const Extent& extent : extents) {
    if (extent.guest.value() != at || extent.length == 0)
      return fmt::format("the map has a gap or an overlap: {} should begin at {}", describe(extent),
                         at);
    at += extent.length;
    if (extent.reads_as_zero())
      if (const auto found = truth.first_nonzero(extent.guest.value(), extent.length))
        return fmt::format("{} is not zero at {}", describe(extent), *found);
  }
  return at == end ? "" : fmt::format("the map ends at {}, not at {}", at, end);
}

std::string extent_complaint(const Disk& disk, const std::vector<Extent>& extents,
                             const RawFile& truth) {
  for (const Extent& extent : extents) {
    if (extent.reads_as_zero()) continue;
    for (GuestOffset at = extent.guest; at < extent.end();) {
      std::vector<std::byte> got(std::min(kPiece, extent.end() - at), std::byte{0xa5});
      if (const auto done = disk.read_extent(extent, at, got); !done)
        return fmt::format("{} at {}: {}", describe(extent), at.value(), done.error().message());
      auto complaint = differ_complaint(got, truth.read(at.value(), got.size()), at.value());
      if (!complaint.empty()) return describe(extent) + ": " + complaint;
      at += got.size();
    }
  }
  return {};
}

std::string read_complaint(const Disk& disk, const RawFile& truth, unsigned threads, bool huge,
                           Random& random) {
  // Pieces of random lengths, read in random order.
  std::vector<std::pair<uint64_t, uint64_t>> pieces;
  for (uint64_t at = 0; !huge && at < disk.size();) {
    const uint64_t length = std::min(random.between(1, kPiece), disk.size() - at);
    pieces.emplace_back(at, length);
    at += length;
  }
  for (size_t i = pieces.size(); i > 1; --i) std::swap(pieces[i - 1], pieces[random.below(i)]);

  std::mutex mutex;
  std::string complaint;  // the first one; guarded by mutex
  size_t next = 0;        // guarded by mutex
  const auto work = [&](uint64_t seed) {
    Random own(seed);
    std::string found = read_random_pieces(disk, truth, 12, own);
    while (true) {
      std::pair<uint64_t, uint64_t> piece;
      {
        const std::lock_guard lock(mutex);
        if (complaint.empty()) complaint = found;
        if (!complaint.empty() || next == pieces.size()) return;
        piece = pieces[next++];
      }
      found = read_piece(disk, truth, piece.first, piece.second);
    }
  };
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; ++i) others.emplace_back(work, random.next());
  work(random.next());
  for (std::thread& thread : others) thread.join();
  return complaint;
}

std::string partial_map_complaint(const Disk& disk, const std::vector<Extent>& whole,
                                  Random& random) {
  for (unsigned i = 0; i < 10; ++i) {
    // Around the border of an extent.
    const Extent& chosen = random.pick(whole);
    uint64_t at = chosen.guest.value() + random.below(chosen.length);
    if (random.chance(50))
      at = chosen.guest.value() - std::min(chosen.guest.value(), random.below(3));
    const uint64_t length = random.between(1, disk.size() - at);
    const size_t limit = random.chance(50) ? random.between(1, 4) : SIZE_MAX;
    std::vector<Extent> some;
    if (const auto done = disk.map(GuestOffset(at), length, some, limit); !done)
      return fmt::format("map of [{}, +{}): {}", at, length, done.error().message());
    if (some.empty() || some.size() > limit)
      return fmt::format("map of [{}, +{}) gave {} extents, the limit is {}", at, length,
                         some.size(), limit);
    const uint64_t end = at + length;
    uint64_t reached = at;
    for (const Extent& extent : some) {
      if (extent.guest.value() != reached || extent.length == 0 || extent.end().value() > end)
        return fmt::format("map of [{}, +{}): {} is out of place", at, length, describe(extent));
      reached = extent.end().value();
      // Each extent of `whole` in this range must agree.
      auto it = std::upper_bound(whole.begin(), whole.end(), extent.guest,
                                 [](GuestOffset a, const Extent& b) { return a < b.guest; });
      for (--it; it != whole.end() && it->guest < extent.end(); ++it) {
        const uint64_t from = std::max(it->guest, extent.guest).value();
        const bool has_host = it->kind == ExtentKind::kData || it->preallocated;
        const bool same_host =
            it->kind == ExtentKind::kCompressed
                ? it->host == extent.host
                : !has_host || it->host.value() + (from - it->guest.value()) ==
                                   extent.host.value() + (from - extent.guest.value());
        if (it->kind != extent.kind || it->depth != extent.depth ||
            it->preallocated != extent.preallocated || !same_host)
          return fmt::format("map of [{}, +{}): {}, but the whole map has {}", at, length,
                             describe(extent), describe(*it));
      }
    }
    if (limit == SIZE_MAX && reached != end)
      return fmt::format("map of [{}, +{}) ends at {}", at, length, reached);
  }
  return {};
}

namespace {

// Returns whether `extent` and `entry`, which both contain `at`, agree.
bool agree(const Disk& disk, const Extent& extent, const MapEntry& entry, uint64_t at) {
  if (extent.depth != entry.depth) return false;
  const uint64_t host = extent.host.value() + (at - extent.guest.value());
  const auto at_host = [&] { return entry.offset && *entry.offset + (at - entry.start) == host; };
  const bool raw = disk.layers()[extent.depth]->format() == std::string_view("raw");
  switch (extent.kind) {
    case ExtentKind::kData:
      // QEMU sets "zero" if the file below has a hole.
      return entry.present && entry.data && at_host();
    case ExtentKind::kCompressed:
      return entry.present && entry.data && !entry.zero && !entry.offset;
    case ExtentKind::kZero:
      if (!entry.zero || entry.data || !entry.present) return false;
      // QEMU reports an offset for a hole of a raw file. It is not a preallocated cluster for us.
      return raw || (extent.preallocated ? at_host() : !entry.offset);
    case ExtentKind::kUnallocated:
      return entry.zero && !entry.data && !entry.present &&
             (extent.preallocated ? at_host() : !entry.offset);
  }
  return false;
}

}  // namespace

std::string qemu_map_complaint(const Disk& disk, const std::vector<Extent>& extents,
                               const std::vector<MapEntry>& entries) {
  auto entry = entries.begin();
  for (const Extent& extent : extents) {
    for (uint64_t at = extent.guest.value(); at < extent.end().value();) {
      while (entry != entries.end() && entry->start + entry->length <= at) ++entry;
      if (entry == entries.end() || entry->start > at)
        return fmt::format("qemu-img map says nothing of {}", at);
      if (!agree(disk, extent, *entry, at))
        return fmt::format("at {}: the engine says {}, qemu-img map {}", at, describe(extent),
                           describe(*entry));
      at = std::min(extent.end().value(), entry->start + entry->length);
    }
  }
  return {};
}

std::vector<Extent> require_same_disk(const Disk& disk, const std::string& path,
                                      const std::string& raw, bool huge, Random& random) {
  const RawFile truth(raw);
  const auto require = [](const std::string& complaint) {
    if (!complaint.empty()) throw std::runtime_error(complaint);
  };
  if (disk.size() != truth.size())
    require(fmt::format("the disk has {} bytes, it should have {}", disk.size(), truth.size()));
  std::vector<Extent> extents;
  if (const auto done = disk.map(GuestOffset(0), disk.size(), extents); !done)
    require("map: " + done.error().message());
  require(cover_complaint(extents, 0, disk.size(), truth));
  require(extent_complaint(disk, extents, truth));
  require(partial_map_complaint(disk, extents, random));
  require(qemu_map_complaint(disk, extents, qemu_map(path)));
  require(read_complaint(disk, truth, 1, huge, random));
  require(read_complaint(disk, truth, 16, huge, random));
  return extents;
}

}  // namespace vc::interop
