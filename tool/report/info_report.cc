#include "tool/report/info_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/printable.h"
#include "base/rounding.h"
#include "tool/report/luks_report.h"
#include "tool/text/feature_names.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"
#include "tool/text/snapshot_list.h"
#include "tool/text/survey_text.h"

namespace vc::tool {

namespace {

using nlohmann::ordered_json;
using qcow2::Bitmap;
using qcow2::Header;
using qcow2::HeaderExtension;
using qcow2::HostUse;
using qcow2::Survey;

const char* compat(const Header& header) {
  return header.version == 2 ? "0.10" : "1.1";
}

bool lazy_refcounts(const Header& header) {
  return (header.compatible_features & qcow2::compatible::kLazyRefcounts) != 0;
}

bool corrupt(const Header& header) {
  return (header.incompatible_features & qcow2::incompatible::kCorrupt) != 0;
}

bool dirty(const inspect::ImageInfo& info) {
  return info.header && (info.header->incompatible_features & qcow2::incompatible::kDirty) != 0;
}

bool data_file_raw(const Header& header) {
  return (header.autoclear_features & qcow2::autoclear::kDataFileRaw) != 0;
}

bool encrypted(const inspect::ImageInfo& info) {
  return info.format == qcow2::Format::kLuks ||
         (info.header && info.header->crypt_method != qcow2::CryptMethod::kNone);
}

const char* encryption(const Header& header) {
  return header.crypt_method == qcow2::CryptMethod::kAes ? "aes" : "luks";
}

const char* true_or_false(bool value) {
  return value ? "true" : "false";
}

const char* extension_name(uint32_t type) {
  switch (type) {
    case HeaderExtension::kBackingFormat:
      return "backing format";
    case HeaderExtension::kFeatureNames:
      return "feature names";
    case HeaderExtension::kBitmaps:
      return "bitmaps";
    case HeaderExtension::kLuks:
      return "LUKS header";
    case HeaderExtension::kDataFile:
      return "data file";
    default:
      return "unknown";
  }
}

std::string layout(const Header& header, const Palette& palette) {
  std::string text = palette.bold("Layout:") + "\n";
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("    {}: {}\n", name, value);
  };
  line("L1 table", fmt::format("{} entries at {:#x}", header.l1_entries, header.l1_table.value()));
  line("refcount table", fmt::format("{} clusters at {:#x}", header.refcount_table_clusters,
                                     header.refcount_table.value()));
  if (header.snapshot_count > 0)
    line("snapshot table", fmt::format("{:#x}", header.snapshot_table.value()));
  line("header length", fmt::format("{}", header.header_length));
  line("feature bits", fmt::format("incompatible {:#x}, compatible {:#x}, autoclear {:#x}",
                                   header.incompatible_features, header.compatible_features,
                                   header.autoclear_features));
  for (const HeaderExtension& it : header.extensions)
    line("header extension",
         fmt::format("{:#010x} ({}), {} bytes", it.type, extension_name(it.type), it.data.size()));
  return text;
}

std::string bitmap_list(const std::vector<Bitmap>& bitmaps) {
  std::string text = "    bitmaps:\n";
  for (size_t i = 0; i < bitmaps.size(); ++i) {
    const Bitmap& it = bitmaps[i];
    text += fmt::format("        [{}]:\n            flags:\n", i);
    unsigned flag = 0;
    if (it.in_use()) text += fmt::format("                [{}]: in-use\n", flag++);
    if (it.automatic()) text += fmt::format("                [{}]: auto\n", flag++);
    text += fmt::format("            name: {}\n            granularity: {}\n", printable(it.name),
                        it.granularity());
  }
  return text;
}

std::string features(const Header& header, const Palette& palette) {
  std::string text;
  const auto line = [&](const char* name, FeatureKind kind) {
    const auto names = feature_names(header, kind);
    if (!names.empty())
      text +=
          fmt::format("    {}: {}\n", name, printable(fmt::format("{}", fmt::join(names, ", "))));
  };
  line("incompatible", FeatureKind::kIncompatible);
  line("compatible", FeatureKind::kCompatible);
  line("autoclear", FeatureKind::kAutoclear);
  return text.empty() ? text : palette.bold("Features:") + "\n" + text;
}

// Returns live, allocated and total size, and the fragmentation of the live data.
std::string space(const inspect::ImageInfo& info, const Palette& palette) {
  const Survey& survey = *info.survey;
  const qcow2::Geometry geometry = info.header->geometry();
  const auto size = [&](uint64_t clusters) {
    return human_size(clusters * geometry.cluster_size());
  };
  const auto part = [&](std::string& list, HostUse use, const char* name) {
    if (survey.of(use) == 0) return;
    list += fmt::format("{}{} {}", list.empty() ? "" : ", ", name, size(survey.of(use)));
  };
  std::string live;
  part(live, HostUse::kData, "data");
  part(live, HostUse::kCompressed, "compressed data");
  part(live, HostUse::kReserved, "reserved");
  part(live, HostUse::kSnapshot, "snapshots alone");
  part(live, HostUse::kMetadata, "metadata");
  std::string text = palette.bold("Space:") + "\n";
  text += fmt::format("    live: {} ({})\n", size(survey.live()), live);
  text += fmt::format("    allocated: {}", size(survey.allocated()));
  if (survey.of(HostUse::kLeaked) > 0)
    text += fmt::format(" (leaked: {}{})", size(survey.of(HostUse::kLeaked)),
                        dirty(info) ? ", if the refcounts were right" : "");
  text += fmt::format("\n    free in the file: {}\n", size(survey.of(HostUse::kFree)));
  text += fmt::format("    fragmentation: {}\n", order_text(survey.order, geometry));
  if (const std::string compressed = compressed_text(survey.order, geometry); !compressed.empty())
    text += fmt::format("    compressed: {}\n", compressed);
  return text;
}

ordered_json bitmap_json(const Bitmap& bitmap) {
  ordered_json flags = ordered_json::array();
  if (bitmap.in_use()) flags.push_back("in-use");
  if (bitmap.automatic()) flags.push_back("auto");
  return {{"flags", flags}, {"name", bitmap.name}, {"granularity", bitmap.granularity()}};
}

ordered_json features_json(const Header& header) {
  return {{"incompatible", feature_names(header, FeatureKind::kIncompatible)},
          {"compatible", feature_names(header, FeatureKind::kCompatible)},
          {"autoclear", feature_names(header, FeatureKind::kAutoclear)}};
}

ordered_json format_specific_json(const inspect::ImageInfo& info) {
  const Header& header = *info.header;
  ordered_json data;
  data["compat"] = compat(header);
  data["compression-type"] = to_string(header.compression_type);
  if (header.version > 2) data["lazy-refcounts"] = lazy_refcounts(header);
  for (const Bitmap& it : info.bitmaps) data["bitmaps"].push_back(bitmap_json(it));
  data["refcount-bits"] = header.refcount_bits();
  if (header.version > 2) {
    data["corrupt"] = corrupt(header);
    data["extended-l2"] = header.extended_l2();
  }
  if (encrypted(info)) {
    if (info.luks) data["encrypt"] = luks_json(*info.luks);
    data["encrypt"]["format"] = encryption(header);
  }
  if (header.has_data_file()) {
    if (const auto name = header.data_file()) data["data-file"] = *name;
    data["data-file-raw"] = data_file_raw(header);
  }
  return {{"type", "qcow2"}, {"data", data}};
}

}  // namespace

std::string info_report(const inspect::ImageInfo& info, bool verbose, const Palette& palette) {
  std::string text;
  const auto line = [&](std::string_view name, std::string_view value) {
    text += fmt::format("{}: {}\n", name, printable(value));
  };
  line("image", info.filename);
  line("file format", to_string(info.format));
  line("virtual size",
       fmt::format("{} ({} bytes)", human_size(info.virtual_size), info.virtual_size));
  if (encrypted(info)) line("encrypted", "yes");
  line("disk size", info.disk_size ? human_size(*info.disk_size) : "unavailable");
  if (info.file_length)
    line("file length",
         fmt::format("{} ({} bytes)", human_size(*info.file_length), *info.file_length));
  if (!info.header && info.luks)
    return text + palette.bold("Format specific information:") + "\n" + luks_lines(*info.luks, 4);
  if (!info.header) return text;

  const Header& header = *info.header;
  line("cluster_size", fmt::format("{}", header.geometry().cluster_size()));
  if (dirty(info)) line("cleanly shut down", "no");
  if (!header.backing_file.empty()) {
    line("backing file", info.full_backing_filename == header.backing_file
                             ? header.backing_file
                             : fmt::format("{} (actual path: {})", header.backing_file,
                                           info.full_backing_filename));
    if (const auto format = header.backing_format()) line("backing file format", *format);
  }
  if (!info.snapshots.empty()) text += snapshot_list(info.snapshots);

  text += palette.bold("Format specific information:") + "\n";
  line("    compat", compat(header));
  line("    compression type", to_string(header.compression_type));
  if (header.version > 2) line("    lazy refcounts", true_or_false(lazy_refcounts(header)));
  if (!info.bitmaps.empty()) text += bitmap_list(info.bitmaps);
  line("    refcount bits", fmt::format("{}", header.refcount_bits()));
  if (encrypted(info))
    text += fmt::format("    encrypt:\n        format: {}\n{}", encryption(header),
                        info.luks ? luks_lines(*info.luks, 8) : "");
  if (header.has_data_file()) {
    line("    data file", header.data_file().value_or("not named"));
    line("    data file raw", true_or_false(data_file_raw(header)));
  }
  if (header.version > 2) {
    line("    corrupt", true_or_false(corrupt(header)));
    line("    extended l2", true_or_false(header.extended_l2()));
  }
  text += features(header, palette);
  if (info.survey) text += space(info, palette);
  if (verbose) text += layout(header, palette);
  return text;
}

namespace {

// Returns the entry of the image file, as in QEMU 8.0 and later.
ordered_json file_json(const inspect::ImageInfo& info) {
  const uint64_t sector = qcow2::Geometry::kSectorSize;
  ordered_json json;
  json["children"] = ordered_json::array();
  json["virtual-size"] = round_up(*info.file_length, sector);
  json["filename"] = info.filename;
  json["format"] = info.block_device ? "host_device" : "file";
  if (info.disk_size) json["actual-size"] = *info.disk_size;
  json["format-specific"] = {{"type", "file"}, {"data", ordered_json::object()}};
  json["dirty-flag"] = false;
  return json;
}

ordered_json info_json(const inspect::ImageInfo& info) {
  ordered_json json;
  json["filename"] = info.filename;
  json["format"] = to_string(info.format);
  json["virtual-size"] = info.virtual_size;
  if (info.disk_size) json["actual-size"] = *info.disk_size;
  if (info.file_length) json["file-length"] = *info.file_length;
  json["dirty-flag"] = dirty(info);
  if (encrypted(info)) json["encrypted"] = true;
  if (info.header) {
    const Header& header = *info.header;
    json["cluster-size"] = header.geometry().cluster_size();
    if (!header.backing_file.empty()) {
      json["backing-filename"] = header.backing_file;
      json["full-backing-filename"] = info.full_backing_filename;
      if (const auto format = header.backing_format()) json["backing-filename-format"] = *format;
    }
    for (const qcow2::Snapshot& it : info.snapshots) json["snapshots"].push_back(snapshot_json(it));
    json["format-specific"] = format_specific_json(info);
    json["features"] = features_json(header);
  } else if (info.luks) {
    json["format-specific"] = {{"type", "luks"}, {"data", luks_json(*info.luks)}};
  }
  if (info.survey) {
    const qcow2::Geometry geometry = info.header->geometry();
    json["space"] = space_json(*info.survey, geometry);
    json["fragmentation"] = order_json(info.survey->order, geometry);
    if (info.survey->damages > 0)
      json["damage"] = {{"count", info.survey->damages}, {"first", info.survey->first_damage}};
  }
  for (const auto* list : {&info.missing, &info.damages})
    for (const std::string& it : *list) json["missing"].push_back(it);
  // Must be last: scripts that take the first "virtual-size" then get the size of the disk.
  if (info.file_length) json["children"].push_back({{"name", "file"}, {"info", file_json(info)}});
  return json;
}

}  // namespace

std::string info_report_json(const inspect::ImageInfo& info) {
  return json_text(info_json(info));
}

std::string info_report_json(const std::vector<inspect::ImageInfo>& chain) {
  ordered_json list = ordered_json::array();
  for (const inspect::ImageInfo& it : chain) list.push_back(info_json(it));
  return json_text(list);
}

}  // namespace vc::tool
