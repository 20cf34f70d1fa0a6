// A picture of a disk's layout in its file: host offsets against guest offsets.
//
// Data is accumulated in bins of equal size, so memory and picture do not grow with the disk.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qcow2/check/survey.h"
#include "qcow2/read/extent.h"

namespace vc::tool {

class MapPicture {
 public:
  // Cells of the plot, 3 by 3 pixels each.
  static constexpr unsigned kColumns = 300;
  static constexpr unsigned kRows = 190;

  // The type of a guest range.
  enum class Guest : uint8_t { kData, kCompressed, kBacking, kZero, kNothing };
  static constexpr size_t kGuests = 5;

  struct Subject {
    std::string title;          // title of the picture, usually the file's name
    uint64_t disk_size = 0;     // bytes
    uint64_t file_size = 0;     // of the file with the data, bytes; 0: unknown (server)
    uint64_t cluster_size = 0;  // bytes; 0: no clusters
  };

  explicit MapPicture(const Subject& subject);

  // Adds an extent of the disk's map.
  void add(const qcow2::Extent& extent);
  // Adds clusters of the file, from the survey.
  void add(HostCluster first, uint64_t count, qcow2::HostUse use);
  // Sets the figures of the survey.
  void set(const qcow2::Survey& survey) { survey_ = survey; }

  // Returns the whole SVG file, at most a few hundred kilobytes.
  std::string svg() const;

 private:
  struct Cell {
    uint64_t plain = 0;       // bytes of the file
    uint64_t compressed = 0;  // bytes of the file
  };
  void mark(uint64_t guest, uint64_t host, uint64_t guest_length, uint64_t host_length,
            bool compressed);

  Subject subject_;
  std::vector<Cell> cells_;                                   // row-major
  std::vector<std::array<uint64_t, kGuests>> guests_;         // bytes, by column
  std::vector<std::array<uint64_t, qcow2::kHostUses>> uses_;  // clusters, by row
  std::array<uint64_t, kGuests> guest_bytes_{};
  bool other_files_ = false;  // some data is in a backing file
  std::optional<qcow2::Survey> survey_;

  friend class MapSvg;
};

}  // namespace vc::tool
