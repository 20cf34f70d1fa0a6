// What a user says of the image that is to be made; what he does not say follows from the source.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "copy/source/source.h"
#include "qcow2/format/build_options.h"
#include "qcow2/read/image.h"

namespace copy {

enum class Preallocation {
  kOff,
  kMetadata,  // every cluster has its place in the file, which takes no room
  kFalloc,    // and the filesystem has reserved the room
  kFull,      // and it is written with zeros
};

const char* to_string(Preallocation preallocation);

struct ImageOptions {
  std::optional<uint32_t> version;  // 2 or 3
  std::optional<unsigned> cluster_bits;
  std::optional<unsigned> refcount_order;
  std::optional<bool> extended_l2;
  std::optional<bool> lazy_refcounts;
  // What the header says, for those who compress later; nothing: that of this copy.
  std::optional<qcow2::CompressionType> compression_type;
  Preallocation preallocation = Preallocation::kOff;
  std::string backing_file;    // is kept; empty: none
  std::string backing_format;  // empty: that of the file
  std::string data_file;       // external, as the image is to name it; empty: none
  bool data_file_raw = false;
};

// With what is not said as the source has it (cluster size, extended L2 entries, lazy refcounts,
// width of the refcounts), or as QEMU makes images.  An error if it cannot be.
qcow2::Result<qcow2::BuildOptions> build_options(const ImageOptions& options, const Source& source,
                                                 const qcow2::Image* image,
                                                 std::optional<qcow2::CompressionType> compression);

}  // namespace copy
