#include "tool/copy_command.h"

#include <fmt/format.h>

#include <bit>

#include "tool/arguments.h"
#include "tool/copy_report.h"
#include "tool/formats.h"
#include "tool/image_info.h"
#include "tool/progress_display.h"
#include "tool/signals.h"
#include "tool/size_text.h"

namespace tool {

namespace {

using qcow2::Error;
using qcow2::fail;
using qcow2::Result;

constexpr int kMaxZstdLevel = 22;
constexpr unsigned kMaxThreads = 256;
constexpr unsigned kMaxConnections = 64;
constexpr unsigned kMaxRequests = 1024;
constexpr uint64_t kMinRequest = 4 << 10;
constexpr uint64_t kMaxRequest = 32 << 20;

// A power of two from `low` to `high`; `range` says both for a person.
Result<uint64_t> parse_power_of_two(const std::string& text, uint64_t low, uint64_t high,
                                    const char* range) {
  ASSIGN_OR_RETURN(const uint64_t value, parse_size(text));
  if (!std::has_single_bit(value) || value < low || value > high)
    return fail(Error::invalid(fmt::format("'{}' is not a power of two {}", text, range)));
  return value;
}

Result<std::optional<unsigned>> parse_cluster_bits(const std::string& text) {
  ASSIGN_OR_RETURN(
      const uint64_t size,
      parse_power_of_two(text, uint64_t{1} << qcow2::Geometry::kMinClusterBits,
                         uint64_t{1} << qcow2::Geometry::kMaxClusterBits, "from 512 to 2M"));
  return static_cast<unsigned>(std::countr_zero(size));
}

auto parse_count(unsigned low, unsigned high) {
  return [low, high](const std::string& text) -> Result<unsigned> {
    ASSIGN_OR_RETURN(const uint64_t value, parse_number(text, low, high));
    return static_cast<unsigned>(value);
  };
}

std::string describe(const ImageInfo& info) {
  std::string text = fmt::format("{}: {}, {}", info.filename, qcow2::to_string(info.format),
                                 human_size(info.virtual_size));
  if (info.header) {
    const qcow2::Header& header = *info.header;
    text += ", clusters of " + human_size(header.geometry().cluster_size());
    if (header.extended_l2()) text += ", extended L2";
    if (!header.backing_file.empty()) text += ", backing file " + info.full_backing_filename;
    if (header.has_data_file()) text += ", data file " + header.data_file().value_or("not named");
  }
  return text;
}

// A copy is of one disk: says what else the source has, which is not in the destination.
void warn_of_losses(const ImageInfo& source, bool of_snapshot, const Console& console) {
  if (!source.snapshots.empty() && !of_snapshot)
    console.warning(
        fmt::format("{}: {} not copied, only the disk as it is now", source.filename,
                    source.snapshots.size() == 1
                        ? std::string("its internal snapshot was")
                        : fmt::format("its {} internal snapshots were", source.snapshots.size())));
  if (source.header && source.header->find_extension(qcow2::HeaderExtension::kBitmaps) != nullptr)
    console.warning(fmt::format("{}: its persistent bitmaps were not copied", source.filename));
}

}  // namespace

Result<Compression> parse_compression(const std::string& text) {
  const size_t colon = text.find(':');
  const std::string type = text.substr(0, colon);
  Compression compression;
  if (type == "zlib")
    return fail(
        Error::unsupported("'zlib' is not offered by this version: use none, zstd or zstd:LEVEL"));
  if (type == "zstd") {
    compression.type = qcow2::CompressionType::kZstd;
    if (colon != std::string::npos) {
      ASSIGN_OR_RETURN(const uint64_t level,
                       qcow2::with_context(parse_number(text.substr(colon + 1), 1, kMaxZstdLevel),
                                           "level of zstd"));
      compression.level = static_cast<int>(level);
    }
    return compression;
  }
  if (text == "none") return compression;
  return fail(Error::invalid(fmt::format("'{}' is none of none, zstd and zstd:LEVEL", text)));
}

const char* CopyCommand::description() const {
  return "Stream the live clusters of SRC (qcow2, raw, NBD) into a fresh QCOW2 file DST.";
}

void CopyCommand::add_options(CLI::App& app) {
  app.add_option("SRC", options_.source);
  app.add_option("DST", options_.destination);
  add_parsed_option(
      app, "-f,--format", "FMT", options_.source_format,
      [](const std::string& text) -> Result<std::optional<qcow2::Format>> {
        return parse_format(text);
      },
      "format of SRC, qcow2 or raw; found out if not given");
  add_switch(app, "-c", compress_, "compress, as --compression=zstd does");
  add_parsed_option(
      app, "--compression", "TYPE", compression_,
      [](const std::string& text) -> Result<std::optional<Compression>> {
        return parse_compression(text);
      },
      "none (the default), zstd or zstd:LEVEL, from 1 to 22");
  add_parsed_option(app, "--cluster-size", "SIZE", options_.cluster_bits, parse_cluster_bits,
                    "of DST, 512 to 2M; default: as SRC has, or 64k");
  add_parsed_option(
      app, "--snapshot", "NAME", options_.snapshot,
      [](const std::string& text) -> Result<std::string> { return text; },
      "copy the disk as it was at an internal snapshot");
  add_switch(app, "-U,--force-share", options_.force_share, "copy even if somebody writes to SRC");
  add_switch(app, "--force", options_.overwrite, "replace DST if it exists");
  add_parsed_option(app, "--threads", "N", options_.threads, parse_count(0, kMaxThreads),
                    "that read and compress; default: one a processor");
  add_parsed_option(app, "--connections", "N", options_.connections,
                    parse_count(1, kMaxConnections), "to an NBD server; default 4");
  add_parsed_option(app, "--requests", "N", options_.requests, parse_count(1, kMaxRequests),
                    "in flight on each connection; default 16");
  add_parsed_option(
      app, "--request-size", "SIZE", options_.request_size,
      [](const std::string& text) {
        return parse_power_of_two(text, kMinRequest, kMaxRequest, "from 4k to 32M");
      },
      "of one NBD request, 4k to 32M; default 256k");
  add_switch(app, "--json", json_, "print the summary as JSON");
}

void CopyCommand::check() const {
  if (options_.source.empty()) throw UsageError("SRC is missing");
  if (options_.destination.empty()) throw UsageError("DST is missing");
  if (options_.source == "-" || options_.destination == "-")
    throw UsageError("'-': pipes are not offered by this version (a file of that name is './-')");
  if (compress_ && compression_ && !compression_->type)
    throw UsageError("-c and --compression=none contradict each other");
}

Result<void> CopyCommand::run(const Console& console) {
  const Compression compression = compression_.value_or(
      compress_ ? Compression{qcow2::CompressionType::kZstd, 0} : Compression{});
  options_.compression = compression.type;
  options_.compression_level = compression.level;

  // A source that cannot be read like this, or is no file, is for the copy to judge.
  const auto source =
      read_image_info(options_.source, options_.source_format, options_.force_share);
  if (source) console.note(describe(*source));
  copy::Cancel cancel;
  const StopSignals signals(cancel);
  ProgressDisplay progress(console.manner());
  const auto summary = copy::copy(options_, progress, cancel);
  progress.finish();
  if (!summary) {
    if (summary.error().kind() == Error::Kind::kCancelled)
      return fail(Error::cancelled().with_context(options_.destination + ": not written"));
    return fail(summary.error());
  }
  if (source) warn_of_losses(*source, !options_.snapshot.empty(), console);
  if (json_)
    return qcow2::with_context(console.print(copy_report_json(options_, *summary)),
                               options_.destination + ": complete, but its summary is lost");
  if (console.manner().quiet) return {};
  return qcow2::with_context(console.print(copy_report(options_, *summary, console.palette())),
                             options_.destination + ": complete, but its summary is lost");
}

}  // namespace tool
