#include "tool/options/layout_options.h"

#include <fmt/format.h>

#include <bit>

#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

constexpr const char* kCompressionHelp = "none (the default), zstd[:1-22] or zlib[:1-12]";

Result<std::optional<unsigned>> parse_cluster_bits(const std::string& text) {
  ASSIGN_OR_RETURN(const uint64_t size, parse_size(text));
  if (!std::has_single_bit(size) || size < uint64_t{1} << qcow2::Geometry::kMinClusterBits ||
      size > uint64_t{1} << qcow2::Geometry::kMaxClusterBits)
    return fail(Error::invalid(fmt::format("'{}' is not a power of two from 512 to 2M", text)));
  return static_cast<unsigned>(std::countr_zero(size));
}

}  // namespace

Result<qcow2::Compression> parse_compression(const std::string& text) {
  if (text == "none") return qcow2::Compression{};
  const size_t comma = text.find(',');
  const std::string codec = text.substr(0, comma);
  const size_t colon = codec.find(':');
  const std::string type = codec.substr(0, colon);
  qcow2::Compression compression;
  if (type == "zstd")
    compression.type = qcow2::CompressionType::kZstd;
  else if (type == "zlib")
    compression.type = qcow2::CompressionType::kDeflate;
  else
    return fail(Error::invalid(
        fmt::format("'{}' is not one of: none, zstd[:LEVEL], zlib[:LEVEL][,window=4k]", text)));
  if (comma != std::string::npos) {
    const std::string option = text.substr(comma + 1);
    if (type != "zlib")
      return fail(Error::invalid(fmt::format("'{}': {} accepts no options", option, type)));
    if (option == "window=4k")
      compression.window = qcow2::DeflateWindow::k4KiB;
    else if (option != "window=32k")
      return fail(Error::invalid(fmt::format("'{}' is neither window=4k nor window=32k", option)));
  }
  if (colon != std::string::npos) {
    const qcow2::CodecLevels levels = qcow2::codec_levels(*compression.type, compression.window);
    ASSIGN_OR_RETURN(
        const uint64_t level,
        with_context(parse_number(codec.substr(colon + 1), static_cast<uint64_t>(levels.lowest),
                                  static_cast<uint64_t>(levels.highest)),
                     fmt::format("level of {}{}", type,
                                 compression.window == qcow2::DeflateWindow::k4KiB
                                     ? " with a window of 4 KiB"
                                     : "")));
    compression.level = static_cast<int>(level);
  }
  return compression;
}

Result<void> resolve_backing(const std::string& base, const std::string& format,
                             copy::ImageOptions& image) {
  if (!base.empty()) {
    if (!image.backing_file.empty() && image.backing_file != base)
      return fail(Error::invalid("-B and backing_file name different files"));
    image.backing_file = base;
  }
  if (!format.empty()) image.backing_format = format;
  return {};
}

void LayoutOptions::add_options(CLI::App& app, const std::string& list_names) {
  add_switch(app, "-c", compress_, "compress (zstd, or compression_type of -o)");
  add_parsed_option(
      app, "--compression", "TYPE", compression_,
      [](const std::string& value) -> Result<std::optional<qcow2::Compression>> {
        return parse_compression(value);
      },
      kCompressionHelp);
  app.add_option_function<std::vector<std::string>>(
         list_names,
         [this, list_names](const std::vector<std::string>& lists) {
           list_given_ = true;
           for (const std::string& list : lists) {
             const auto added = add_creation_options(list, creation_);
             if (!added)
               throw UsageError(list_names.substr(0, list_names.find(',')) + ": " +
                                added.error().message());
           }
         },
         "KEY=VALUE,... of the image, as for qemu-img create")
      ->type_name("LIST")
      ->allow_extra_args(false);
  add_parsed_option(
      app, "--profile", "NAME", profile_,
      [](const std::string& value) { return find_profile(value); },
      "layout for a purpose: sequential, random or archive");
  add_parsed_option(app, "--cluster-size", "SIZE", cluster_bits_, parse_cluster_bits,
                    "cluster size, 512 to 2M; default: as SRC, or 64k")
      ->group(kRareOptions);
  add_switch(app, "--decrypt", decrypt_, "write the data of an encrypted image unencrypted")
      ->group(kRareOptions);
}

Result<void> LayoutOptions::apply_encryption_to(const QemuSecrets& secrets,
                                                copy::CopyOptions& options) const {
  copy::EncryptionChoice& choice = options.image.encryption;
  choice.decrypt = decrypt_;
  return tool::resolve_encryption(creation_.encryption, secrets, choice);
}

void LayoutOptions::check() const {
  if (compress_ && compression_ && !compression_->type)
    throw UsageError("-c and --compression=none exclude each other");
}

Result<void> LayoutOptions::apply_to(copy::CopyOptions& options) const {
  copy::ImageOptions& image = options.image;
  image = creation_.image;
  qcow2::Compression compression;
  if (profile_) {
    if (!image.cluster_bits) image.cluster_bits = profile_->cluster_bits;
    if (!image.extended_l2) image.extended_l2 = profile_->extended_l2;
    compression = profile_->compression;
  }
  if (cluster_bits_) image.cluster_bits = cluster_bits_;
  // Version 2 supports only zlib.
  if (compress_ && !compression.type)
    compression.type = creation_.image.version == 2u ? qcow2::CompressionType::kDeflate
                                                     : qcow2::CompressionType::kZstd;
  if (compression_) compression = *compression_;
  if (creation_.compression_type && compression.type &&
      *creation_.compression_type != *compression.type) {
    if (compression_ || profile_)
      return fail(Error::invalid(fmt::format(
          "compression_type={}: contradicts --{}={}", to_string(*creation_.compression_type),
          compression_ ? "compression" : "profile", to_string(*compression.type))));
    compression.type = creation_.compression_type;
  }
  if (creation_.compression_level) {
    if (!compression.type)
      return fail(
          Error::invalid("compression_level: needs -c, because nothing is compressed without it"));
    const qcow2::CodecLevels levels = qcow2::codec_levels(*compression.type, compression.window);
    if (*creation_.compression_level < levels.lowest ||
        *creation_.compression_level > levels.highest)
      return fail(Error::invalid(fmt::format(
          "compression_level={}: {} has levels from {} to {}", *creation_.compression_level,
          to_string(*compression.type), levels.lowest, levels.highest)));
    compression.level = *creation_.compression_level;
  }
  image.compression_type = creation_.compression_type;
  options.compression = compression;
  return {};
}

}  // namespace vc::tool
