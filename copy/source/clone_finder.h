// Decides which clusters of a chunk are cloned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "copy/source/chunk.h"
#include "copy/source/cloning.h"
#include "qcow2/format/geometry.h"
#include "storage/file_storage.h"

namespace vc::copy {

// A group of clusters (Cloning::group()) can be cloned if all of its data is in whole blocks of
// files that can be cloned. What is not data in it stays a hole of the destination.
//
// A copy leaves out zeros that the source stores as data. To find them, the first block of a
// cluster is read, and the rest only if that is zeros. So the result is the same as without clones.
class CloneFinder {
 public:
  // By depth: the file that stores the plain data of a layer at its host offsets, or nullptr.
  using Files = std::span<const FileStorage* const>;

  CloneFinder(const Cloning& cloning, const qcow2::Geometry& geometry)
      : cloning_(cloning), geometry_(geometry) {}

  // Fills the pieces of a prepared chunk, and marks its clusters: kYes need not be read; kMaybe are
  // cloned unless they are zeros. Returns an error if clones are demanded and not possible.
  Result<void> find(Files files, Chunk& chunk);

 private:
  // A part of a chunk, bytes.
  struct Part {
    uint64_t begin;
    uint64_t end;
  };
  // A part that may be zeros. Its data begins in one of the pieces from number `first_piece`.
  struct Search {
    Part part;
    size_t first_piece;
  };
  // A byte of a chunk, and where a file stores it.
  struct Place {
    uint64_t at;
    const FileStorage* from;
    HostOffset host;
  };

  Result<bool> add_pieces(Files files, const Part& group, size_t extent, Chunk& chunk);
  Result<bool> are_clonable(const Part& group, size_t first_piece, const Chunk& chunk);
  Result<uint64_t> size_of(const FileStorage& file);
  std::optional<Place> first_data(const Search& search, const Chunk& chunk) const;
  bool find_cached(const Search& search, Chunk& chunk) const;
  Result<bool> begins_with_data(const Search& search, Chunk& chunk) const;
  Result<void> search(std::span<const Search> searches, Chunk& chunk) const;
  bool has_data(const Part& part, const Chunk& chunk) const;
  void mark(const Part& part, Chunk::Clone how, Chunk& chunk) const;
  Result<bool> refuse(const Chunk& chunk, uint64_t at, const std::string& why) const;

  const Cloning& cloning_;
  const qcow2::Geometry geometry_;
  const FileStorage* measured_ = nullptr;  // the file that `size_` belongs to
  uint64_t size_ = 0;                      // bytes
};

}  // namespace vc::copy
