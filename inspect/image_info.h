// What an image says of itself, without opening what it refers to.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/check/survey.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/header.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/chain.h"

namespace tool {

struct ImageInfo {
  std::string filename;  // as the user gave it
  qcow2::Format format = qcow2::Format::kRaw;
  uint64_t virtual_size = 0;  // bytes
  // Nothing: a server has it.
  std::optional<uint64_t> file_length;  // bytes
  std::optional<uint64_t> disk_size;    // bytes of blocks that this file takes
  bool block_device = false;
  // Of a qcow2 image alone:
  std::optional<qcow2::Header> header;
  std::vector<qcow2::Snapshot> snapshots;
  std::vector<qcow2::Bitmap> bitmaps;
  std::string full_backing_filename;  // where the backing file's name leads; empty: none
  std::optional<qcow2::Survey> survey;
  // Parts that could not be read, and so are missing here.
  std::vector<std::string> missing;
  // Damage that keeps nothing from being told but the survey.
  std::vector<std::string> damages;
};

struct InfoOptions {
  std::optional<qcow2::Format> format = {};  // nothing: the content decides
  bool force_share = false;                  // even if somebody writes to it
  bool survey = true;                        // go through all tables
  qcow2::Trust trust = {};
  // Of the survey: bytes of the disk.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

// Reads the header, the snapshot table and the directory of bitmaps of the image at `path`, and
// surveys it.  That there is no image, or no header to be made sense of, is an error; what else
// cannot be read is `missing`.  Errors name the path.
qcow2::Result<ImageInfo> read_image_info(const std::string& path, const InfoOptions& options);

// The image at `path`, and its backing files one by one.  Those of which the first error tells are
// not there: `error` is it, and what came before is returned all the same.
std::vector<ImageInfo> read_chain_info(const std::string& path, const InfoOptions& options,
                                       std::optional<qcow2::Error>& error);

}  // namespace tool
