// What an image says of itself, without opening what it refers to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qcow2/chain.h"
#include "qcow2/header.h"
#include "qcow2/result.h"
#include "qcow2/snapshot_table.h"

namespace tool {

struct ImageInfo {
  std::string filename;  // as the user gave it
  qcow2::Format format = qcow2::Format::kRaw;
  uint64_t virtual_size = 0;  // bytes
  uint64_t file_length = 0;   // bytes
  uint64_t disk_size = 0;     // bytes of blocks that this file takes
  // Of a qcow2 image alone:
  std::optional<qcow2::Header> header;
  std::vector<qcow2::Snapshot> snapshots;
  std::string full_backing_filename;  // where the backing file's name leads; empty: none
};

// Reads the header and the snapshot table of the image at `path`; nothing for `format` lets the
// content decide.  `force_share`: even if somebody writes to it.  Errors name the path.
qcow2::Result<ImageInfo> read_image_info(const std::string& path,
                                         std::optional<qcow2::Format> format, bool force_share);

}  // namespace tool
