#include "copy/source/clone_finder.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/rounding.h"
#include "base/zero_bytes.h"

namespace vc::copy {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

// Parts of at most this many blocks are read as a whole: that is faster than many short reads.
constexpr uint64_t kBlocksAtOnce = 4;
constexpr size_t kProbe = 256;  // bytes

bool continues(const Chunk::Piece& piece, const Chunk::Piece& next) {
  return piece.from == next.from && piece.end == next.begin &&
         piece.at + (piece.end - piece.begin) == next.at;
}

}  // namespace

// Data that cannot be cloned is copied, unless clones are demanded.
Result<bool> CloneFinder::refuse(const Chunk& chunk, uint64_t at, const std::string& why) const {
  if (!cloning_.is_demanded()) return false;
  const GuestOffset guest = geometry_.start_of(chunk.first) + at;
  return fail(Error::invalid(
      fmt::format("failed to clone the data of guest offset {:#x}: {}: --reflink=auto copies it",
                  guest.value(), why)));
}

// Asks once for each chunk and file: a chunk has many groups, and usually one file.
Result<uint64_t> CloneFinder::size_of(const FileStorage& file) {
  if (measured_ != &file) {
    ASSIGN_OR_RETURN(size_, file.size());
    measured_ = &file;
  }
  return size_;
}

// Adds the data of a group, beginning with extent number `extent`. Returns false if the group
// cannot be cloned.
Result<bool> CloneFinder::add_pieces(Files files, const Part& group, size_t extent, Chunk& chunk) {
  const GuestOffset start = geometry_.start_of(chunk.first);
  const size_t first_piece = chunk.pieces.size();
  for (; extent < chunk.extents.size(); ++extent) {
    const Extent& it = chunk.extents[extent];
    const uint64_t guest = it.guest - start;
    if (guest >= group.end) break;
    if (it.reads_as_zero()) continue;
    // Is recompressed or copied as a stream.
    if (it.kind == ExtentKind::kCompressed) return false;
    const uint64_t begin = std::max(guest, group.begin);
    const FileStorage* const file = it.depth < files.size() ? files[it.depth] : nullptr;
    if (!file) return refuse(chunk, begin, "it is encrypted, or not in a file");
    if (!cloning_.can_clone(*file)) return refuse(chunk, begin, cloning_.reason(*file).message());
    const Chunk::Piece piece{begin, std::min(guest + it.length, group.end), file,
                             it.host + (begin - guest)};
    if (chunk.pieces.size() > first_piece && continues(chunk.pieces.back(), piece))
      chunk.pieces.back().end = piece.end;
    else
      chunk.pieces.push_back(piece);
  }
  return are_clonable(group, first_piece, chunk);
}

Result<bool> CloneFinder::are_clonable(const Part& group, size_t first_piece, const Chunk& chunk) {
  const uint64_t block = cloning_.block();
  if (geometry_.cluster_size() % block != 0)
    return refuse(chunk, group.begin,
                  fmt::format("clusters of {} bytes are smaller than the blocks of the filesystem",
                              geometry_.cluster_size()));
  for (size_t i = first_piece; i < chunk.pieces.size(); ++i) {
    const Chunk::Piece& piece = chunk.pieces[i];
    if (piece.begin % block != 0 || piece.end % block != 0 || piece.at.value() % block != 0)
      return refuse(
          chunk, piece.begin,
          fmt::format("it is not in whole blocks of {} bytes of {}", block, piece.from->name()));
    // The file may end inside its last cluster. Such a piece is copied in any case.
    ASSIGN_OR_RETURN(const uint64_t size, size_of(*piece.from));
    if (piece.at.value() + (piece.end - piece.begin) > size) return false;
  }
  return true;
}

bool CloneFinder::has_data(const Part& part, const Chunk& chunk) const {
  const uint64_t last = (part.end - 1) >> geometry_.cluster_bits();
  for (uint64_t i = part.begin >> geometry_.cluster_bits(); i <= last; ++i)
    if (chunk.clusters[i].kind == Chunk::Cluster::Kind::kData) return true;
  return false;
}

void CloneFinder::mark(const Part& part, Chunk::Clone how, Chunk& chunk) const {
  const uint64_t last = (part.end - 1) >> geometry_.cluster_bits();
  for (uint64_t i = part.begin >> geometry_.cluster_bits(); i <= last; ++i)
    if (chunk.clusters[i].kind == Chunk::Cluster::Kind::kData) chunk.clusters[i].clone = how;
}

// Returns where the data of a part begins; nullopt if it has none.
std::optional<CloneFinder::Place> CloneFinder::first_data(const Search& search,
                                                          const Chunk& chunk) const {
  for (size_t i = search.first_piece; i < chunk.pieces.size(); ++i) {
    const Chunk::Piece& piece = chunk.pieces[i];
    if (piece.end <= search.part.begin) continue;
    const uint64_t at = std::max(piece.begin, search.part.begin);
    return Place{at, piece.from, piece.at + (at - piece.begin)};
  }
  return std::nullopt;
}

// Finds data with what is in the page cache. Returns false if that does not suffice, and starts to
// read what is missing.
bool CloneFinder::find_cached(const Search& search, Chunk& chunk) const {
  const auto place = first_data(search, chunk);
  if (!place) return false;
  const auto probe = chunk.bytes.span().subspan(place->at, kProbe);
  if (place->from->read_cached(place->host, probe) == probe.size()) {
    if (is_zero(probe)) return false;
    mark(search.part, Chunk::Clone::kYes, chunk);
    return true;
  }
  place->from->prefetch(place->host, cloning_.block());
  return false;
}

// Reads the first block of the data in a part; of most blocks, the first bytes suffice.
Result<bool> CloneFinder::begins_with_data(const Search& search, Chunk& chunk) const {
  const auto place = first_data(search, chunk);
  if (!place) return false;
  const auto block = chunk.bytes.span().subspan(place->at, cloning_.block());
  const auto probe = block.first(kProbe);
  RETURN_IF_ERROR(read_fully(*place->from, place->host, probe));
  if (!is_zero(probe)) return true;
  RETURN_IF_ERROR(read_fully(*place->from, place->host, block));
  return !is_zero(block);
}

// Marks the clusters of parts: either a part begins with data, or it must be read. If the data is
// not in the page cache, the first blocks of all parts are read at the same time.
Result<void> CloneFinder::search(std::span<const Search> searches, Chunk& chunk) const {
  std::vector<Search> left;
  for (const Search& it : searches) {
    if (it.part.end - it.part.begin <= kBlocksAtOnce * cloning_.block())
      mark(it.part, Chunk::Clone::kMaybe, chunk);
    else if (!find_cached(it, chunk))
      left.push_back(it);
  }
  for (const Search& it : left) {
    ASSIGN_OR_RETURN(const bool found, begins_with_data(it, chunk));
    mark(it.part, found ? Chunk::Clone::kYes : Chunk::Clone::kMaybe, chunk);
  }
  return {};
}

Result<void> CloneFinder::find(Files files, Chunk& chunk) {
  const uint64_t start = geometry_.start_of(chunk.first).value();
  const uint64_t length = chunk.end().value() - start;
  const uint64_t group_size = cloning_.group();
  std::vector<Search> searches;
  size_t extent = 0;  // the first extent that ends after the group's begin
  // A group that the chunk does not contain completely is at the end of the disk. It is copied:
  // what follows the disk in its last cluster must be zeros.
  for (uint64_t at = round_up(start, group_size) - start; at + group_size <= length;
       at += group_size) {
    const Part group{at, at + group_size};
    if (!has_data(group, chunk)) continue;
    while (chunk.extents[extent].end().value() - start <= at) ++extent;
    const size_t first_piece = chunk.pieces.size();
    ASSIGN_OR_RETURN(const bool can, add_pieces(files, group, extent, chunk));
    if (!can) {
      chunk.pieces.resize(first_piece);
      continue;
    }
    const uint64_t unit = cloning_.searches_groups() ? group_size : geometry_.cluster_size();
    for (uint64_t part = at; part < group.end; part += unit)
      if (has_data({part, part + unit}, chunk))
        searches.push_back({{part, part + unit}, first_piece});
  }
  return search(searches, chunk);
}

}  // namespace vc::copy
