// What an image says about itself, without opening files it refers to.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "crypto/luks_header.h"
#include "qcow2/check/survey.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/header.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/chain.h"

namespace vc::inspect {

struct ImageInfo {
  std::string filename;  // as the user gave it
  qcow2::Format format = qcow2::Format::kRaw;
  uint64_t virtual_size = 0;  // bytes
  // nullopt for a disk on a server:
  std::optional<uint64_t> file_length;  // bytes
  std::optional<uint64_t> disk_size;    // allocated blocks of this file, bytes
  bool block_device = false;
  // For a QCOW2 image or raw disk that is encrypted with LUKS, without the key material:
  std::optional<crypto::LuksHeader> luks;
  // Only for a QCOW2 image:
  std::optional<qcow2::Header> header;
  std::vector<qcow2::Snapshot> snapshots;
  std::vector<qcow2::Bitmap> bitmaps;
  std::string full_backing_filename;  // resolved name of the backing file; empty: none
  std::optional<qcow2::Survey> survey;
  // Parts that could not be read and are missing here.
  std::vector<std::string> missing;
  // Damage that prevents only the survey.
  std::vector<std::string> damages;
};

struct InfoOptions {
  std::optional<qcow2::Format> format = {};  // nullopt: probe the content
  bool force_share = false;                  // even if another process writes to the file
  bool survey = true;                        // read all tables
  qcow2::Trust trust = {};
  // Progress of the survey, bytes of the disk.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

// Reads the header, snapshot table and bitmap directory of the image at `path`, and surveys the
// image. Returns an error if there is no image or its header is invalid. Other parts that cannot be
// read are listed in `missing`. Errors name the path.
Result<ImageInfo> read_image_info(const std::string& path, const InfoOptions& options);

// Reads the image at `path`, then its backing files one by one. Stops at the first error, stores it
// in `error`, and returns the images before it.
std::vector<ImageInfo> read_chain_info(const std::string& path, const InfoOptions& options,
                                       std::optional<Error>& error);

}  // namespace vc::inspect
