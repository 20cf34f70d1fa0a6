// Options of a copy: source, destination, format, tuning.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "copy/sink/image_options.h"
#include "copy/source/reflink.h"
#include "copy/states/snapshot_choice.h"
#include "guest/reading/ranges.h"
#include "nbd/tuning.h"
#include "qcow2/format/codec.h"
#include "qcow2/read/chain.h"

namespace vc::copy {

class LocalSource;

// The rest of a source that is not known yet when the copy starts.
struct LateSource {
  uint64_t begin = 0;  // offset of the rest, bytes; a multiple of the destination's cluster size
  // Returns an image file whose disk has the size of the first source.  copy() calls this once,
  // when all that is before `begin` is copied; it may wait.
  std::function<Result<std::unique_ptr<LocalSource>>()> open;
};

// Which persistent bitmaps of the source's image go along into a new image.
enum class BitmapChoice {
  kNone,
  kValid,     // those that can
  kUnbroken,  // as kAll, but without those that are in use or damaged
  kAll,       // all: one that cannot is an error
};

struct CopyOptions {
  // A path, an NBD URI, or "-" for standard input or output. The destination can also be "null:",
  // which discards all data.
  std::string source;
  std::string destination;
  // Used instead of the name: a server to start for the copy, "[ COMMAND … ]" without the brackets.
  std::vector<std::string> source_command;
  std::vector<std::string> destination_command;
  std::optional<qcow2::Format> source_format;  // nullopt: probe; unused for NBD (raw)
  // nullopt: qcow2 for files and pipes, raw for servers. Required for block devices.
  std::optional<qcow2::Format> format;
  std::string snapshot;  // internal snapshot by ID or name; empty: current disk
  // Internal snapshots to carry into a QCOW2 image; nullopt: none.
  std::optional<SnapshotChoice> snapshots;
  bool overwrite = false;    // replace an existing destination
  bool force_share = false;  // read the source although another process writes to it
  qcow2::Trust trust;        // applies to the source
  bool salvage = false;      // source file only: unreadable data becomes zeros
  // Parts of the source's disk that its guest does not use. The copy does not read them and has
  // zeros there. nullptr: none, or the parts that skip_free finds.
  std::shared_ptr<const guest::Ranges> unused;
  // Finds these parts in the metadata of the guest's filesystems. The guest must not run. Not
  // possible for a stream, a salvage, or an update by a dirty bitmap.
  bool skip_free = false;
  // nullopt: all is in `source`.  Only for an image file that is copied to a file.
  std::optional<LateSource> late;

  qcow2::Compression compression;
  // Without `compression`: clusters that are compressed in a source image file stay compressed,
  // with the codec that its header names.
  bool keep_compression = false;
  ImageOptions image;  // for a QCOW2 destination
  // Runs of zeros of this size become holes in raw destinations. Bytes, a power of two; 0: default.
  uint64_t sparse_size = 0;
  bool destination_is_zero = false;  // device or server whose disk reads as zeros
  // Folder for the temporary file of a compressed image that goes to standard output. nullopt: the
  // default temporary folder. Empty: no temporary file; the image is built twice.
  std::optional<std::string> spool;

  // Name of a QEMU dirty bitmap. Copies only what the bitmap marks as changed, into an earlier
  // copy. Empty: copies everything into a new destination. After a failed update the destination is
  // in neither the old nor the new state; another run with the same bitmap repairs it.
  std::string bitmap;

  // Persistent bitmaps that go along.
  BitmapChoice bitmaps = BitmapChoice::kNone;
  // The disk whose bitmaps they are; it must outlive the copy. nullptr: the source. Otherwise the
  // source is this disk, or an overlay of it.
  const qcow2::Chain* original = nullptr;

  Reflink reflink = Reflink::kAuto;
  bool verify = false;      // read the result back and compare
  bool dry_run = false;     // write nothing; the summary predicts the result
  uint64_t rate_limit = 0;  // bytes per second to read; 0: no limit
  unsigned threads = 0;     // worker threads; 0: one per processor
  // Applies to all connections to servers: source, destination, verification. Requests have 4 KiB
  // to 32 MiB.
  nbd::NbdTuning nbd;

  bool is_update() const { return !bitmap.empty(); }
  bool keeps_backing() const { return !image.backing_file.empty(); }
};

}  // namespace vc::copy
