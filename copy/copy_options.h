// What is copied, where to, and how.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "copy/sink/image_options.h"
#include "guest/reading/ranges.h"
#include "nbd/tuning.h"
#include "qcow2/read/chain.h"

namespace copy {

struct CopyOptions {
  // A path, an NBD URI, or "-", standard input or output; for the destination also "null:", which
  // forgets what it gets.
  std::string source;
  std::string destination;
  // Instead: a server to start for the copy, "[ COMMAND … ]" without the brackets.
  std::vector<std::string> source_command;
  std::vector<std::string> destination_command;
  std::optional<qcow2::Format> source_format;  // nothing: found out; not for NBD, where it is raw
  // Nothing: qcow2 for files and pipes, raw for servers; for a block device it must be said.
  std::optional<qcow2::Format> format;
  std::string snapshot;      // an internal snapshot by id or name; empty: the disk as it is now
  bool overwrite = false;    // replace an existing destination
  bool force_share = false;  // read the source even if somebody writes to it
  qcow2::Trust trust;        // of the source
  bool salvage = false;      // of a file: what cannot be read becomes zeros
  // Parts of the source's disk that its guest does not use: they are zeros in the copy, and not
  // read.  nullptr: none, or those that skip_free finds.
  std::shared_ptr<const guest::Ranges> unused;
  // Find these parts in the metadata of the guest's filesystems.  The guest must not run, and the
  // source be no stream, no salvage and no update by a dirty bitmap.
  bool skip_free = false;

  std::optional<qcow2::CompressionType> compression;           // nothing: plain clusters
  int compression_level = 0;                                   // 0: the codec's default
  qcow2::DeflateWindow window = qcow2::DeflateWindow::k32KiB;  // of zlib
  // Without a compression: what is compressed in the source, if that is an image file, stays so, in
  // the codec that its header names.
  bool keep_compression = false;
  ImageOptions image;  // of a QCOW2 destination
  // Zeros of this many bytes are left out of raw destinations; a power of two.  0: what suits it.
  uint64_t sparse_size = 0;
  bool destination_is_zero = false;  // a device or server whose disk reads as zeros
  // Where compressed images wait until they are whole, when they go to standard output.  Nothing: a
  // folder for temporary files; empty: nowhere, they are made twice.
  std::optional<std::string> spool;

  // Take only what this dirty bitmap of QEMU's says to have changed since, and write it into the
  // destination, an earlier copy; empty: all, into a fresh one.  When that fails the destination is
  // neither the earlier nor the later state; once more with the same bitmap makes it good.
  std::string bitmap;

  bool verify = false;      // read the result again, and compare
  bool dry_run = false;     // write nothing: the summary says what there would be
  uint64_t rate_limit = 0;  // bytes a second that are read; 0: none
  unsigned threads = 0;     // that read, look for zeros and compress; 0: one for each processor
  // For every connection to a server: of the source, the destination, and for verifying.  Requests
  // are of 4 KiB to 32 MiB.
  NbdTuning nbd;
};

}  // namespace copy
