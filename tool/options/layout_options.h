// Options for the layout of a new image: for copy, and for all commands that copy.
#pragma once

#include <optional>
#include <string>

#include "copy/copier.h"
#include "qcow2/format/codec.h"
#include "tool/options/arguments.h"
#include "tool/options/copy_profile.h"
#include "tool/options/creation_options.h"

namespace vc::tool {

// Parses "none" or TYPE[:LEVEL]; zlib also accepts the suffix ",window=4k" or ",window=32k".
Result<qcow2::Compression> parse_compression(const std::string& text);

// Merges -B and -F into `image`, where -o may have set the same. Empty: not given.
Result<void> resolve_backing(const std::string& base, const std::string& format,
                             copy::ImageOptions& image);

class LayoutOptions {
 public:
  // Adds -c, --compression, -o, --profile, --cluster-size and --decrypt. They bind to this object,
  // which must outlive `app`. `list_names`: other names for -o, where -o has another meaning.
  void add_options(CLI::App& app, const std::string& list_names = "-o,--options");
  // Has the effect of -c.
  void compress() { compress_ = true; }
  // Returns true if the options set the compression, including "none".
  bool say_compression() const { return compress_ || compression_ || profile_; }
  // Returns true with -c or a codec.
  bool compresses() const { return compress_ || (compression_ && compression_->type); }
  // Returns the value of --compression.
  const std::optional<qcow2::Compression>& compression() const { return compression_; }
  // Throws UsageError if the options conflict.
  void check() const;
  // Applies the options to `options`. Specific options override general ones.
  Result<void> apply_to(copy::CopyOptions& options) const;

  // Applies encrypt.* of -o and --decrypt to `options`.
  Result<void> apply_encryption_to(const QemuSecrets& secrets, copy::CopyOptions& options) const;

  // Returns true if any of these options was given.
  bool given() const {
    return compress_ || compression_ || cluster_bits_ || profile_ || list_given_;
  }
  // Returns size= of -o, which copies do not use.
  std::optional<uint64_t> size() const { return creation_.size; }
  // Returns nullptr if there is no profile.
  const CopyProfile* profile() const { return profile_; }

 private:
  CreationOptions creation_;
  const CopyProfile* profile_ = nullptr;
  std::optional<qcow2::Compression> compression_;
  std::optional<unsigned> cluster_bits_;
  bool compress_ = false;    // -c
  bool list_given_ = false;  // -o
  bool decrypt_ = false;
};

}  // namespace vc::tool
