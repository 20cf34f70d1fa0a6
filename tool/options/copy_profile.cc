#include "tool/options/copy_profile.h"

#include <fmt/format.h>

#include <array>

namespace vc::tool {

using qcow2::CompressionType;

namespace {

constexpr std::array kProfiles = {
    // Few map entries, and long runs on the disk.
    CopyProfile{"sequential",
                "clusters of 1 MiB, not compressed: for large files that are read sequentially",
                20,
                false,
                {}},
    // A small write moves 4 KiB, and the map of 512 GiB fits into 64 MiB.
    CopyProfile{"random",
                "clusters of 128 KiB with subclusters of 4 KiB, not compressed: for databases and "
                "busy guests",
                17,
                true,
                {}},
    // Larger clusters compress better.
    CopyProfile{"archive",
                "clusters of 1 MiB, zstd at level 12: for archives",
                20,
                false,
                {CompressionType::kZstd, 12}},
};

}  // namespace

Result<const CopyProfile*> find_profile(const std::string& name) {
  for (const CopyProfile& it : kProfiles)
    if (name == it.name) return &it;
  return fail(Error::invalid(fmt::format("'{}' is not one of: sequential, random, archive", name)));
}

}  // namespace vc::tool
