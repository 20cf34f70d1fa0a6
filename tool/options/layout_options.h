// What a fresh image is to be like: the options of copy, and of all that copies.
#pragma once

#include <optional>
#include <string>

#include "copy/copier.h"
#include "qcow2/format/codec.h"
#include "tool/options/arguments.h"
#include "tool/options/copy_profile.h"
#include "tool/options/creation_options.h"

namespace tool {

// What --compression asks for.
struct Compression {
  std::optional<qcow2::CompressionType> type;  // nothing: none
  int level = 0;                               // 0: the codec's default
  qcow2::DeflateWindow window = qcow2::DeflateWindow::k32KiB;
};

// none, or TYPE[:LEVEL], for zlib with ",window=4k" or ",window=32k" behind it.
qcow2::Result<Compression> parse_compression(const std::string& text);

// -B and -F, where -o may have said the same.  Empty: not given.
qcow2::Result<void> settle_backing(const std::string& base, const std::string& format,
                                   copy::ImageOptions& image);

class LayoutOptions {
 public:
  // -c, --compression, -o, --profile and --cluster-size.  They bind to this object, which must
  // outlive `app`.  `list_names`: where -o is something else.
  void add_options(CLI::App& app, const std::string& list_names = "-o,--options");
  // As if -c had been given.
  void compress() { compress_ = true; }
  // Whether they say that something is compressed, or nothing.
  bool say_compression() const { return compress_ || compression_ || profile_; }
  // Throws UsageError when they contradict each other.
  void check() const;
  // What they say together, the more particular before the more general.
  qcow2::Result<void> settle(copy::CopyOptions& options) const;

  // Whether any of them was given.
  bool given() const {
    return compress_ || compression_ || cluster_bits_ || profile_ || list_given_;
  }
  // What size= behind -o said: no copy gets it.
  std::optional<uint64_t> size() const { return creation_.size; }
  // nullptr: none was asked for.
  const CopyProfile* profile() const { return profile_; }

 private:
  CreationOptions creation_;
  const CopyProfile* profile_ = nullptr;
  std::optional<Compression> compression_;
  std::optional<unsigned> cluster_bits_;
  bool compress_ = false;    // -c
  bool list_given_ = false;  // -o
};

}  // namespace tool
