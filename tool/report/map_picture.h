// A picture of where a disk lies in its file: host order against guest order.
//
// What is drawn is gathered in bins of equal size, so that memory, and the picture, do not grow
// with the disk.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qcow2/check/survey.h"
#include "qcow2/read/extent.h"

namespace tool {

class MapPicture {
 public:
  // Cells of the plot.  They are 3 pixels wide and high.
  static constexpr unsigned kColumns = 300;
  static constexpr unsigned kRows = 190;

  // What a guest offset is.
  enum class Guest : uint8_t { kData, kCompressed, kBacking, kZero, kNothing };
  static constexpr size_t kGuests = 5;

  struct Subject {
    std::string title;          // of the picture: mostly the file's name
    uint64_t disk_size = 0;     // bytes
    uint64_t file_size = 0;     // bytes of the file that the data is in; 0: a server's, not known
    uint64_t cluster_size = 0;  // bytes; 0: there are none
  };

  explicit MapPicture(const Subject& subject);

  // A stretch of the disk, as the engine's map has it.
  void add(const qcow2::Extent& extent);
  // Clusters of the file, from the survey.
  void add(qcow2::HostCluster first, uint64_t count, qcow2::HostUse use);
  // Its figures.
  void set(const qcow2::Survey& survey) { survey_ = survey; }

  // The whole file, some hundred kilobytes at most.
  std::string svg() const;

 private:
  struct Cell {
    uint64_t plain = 0;       // bytes of the file
    uint64_t compressed = 0;  // bytes of the file
  };
  void mark(uint64_t guest, uint64_t host, uint64_t guest_length, uint64_t host_length,
            bool compressed);

  Subject subject_;
  std::vector<Cell> cells_;                                   // by row, column by column
  std::vector<std::array<uint64_t, kGuests>> guests_;         // bytes, by column
  std::vector<std::array<uint64_t, qcow2::kHostUses>> uses_;  // clusters, by row
  std::array<uint64_t, kGuests> guest_bytes_{};
  bool other_files_ = false;  // some data is in a backing file
  std::optional<qcow2::Survey> survey_;

  friend class MapSvg;
};

}  // namespace tool
