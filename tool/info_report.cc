#include "tool/info_report.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "tool/size_text.h"

namespace tool {

namespace {

using nlohmann::ordered_json;
using qcow2::Header;
using qcow2::HeaderExtension;
using qcow2::Snapshot;

constexpr uint64_t kNanoseconds = 1'000'000'000;

const char* compat(const Header& header) {
  return header.version == 2 ? "0.10" : "1.1";
}

bool lazy_refcounts(const Header& header) {
  return (header.compatible_features & qcow2::compatible::kLazyRefcounts) != 0;
}

bool corrupt(const Header& header) {
  return (header.incompatible_features & qcow2::incompatible::kCorrupt) != 0;
}

bool dirty(const ImageInfo& info) {
  return info.header && (info.header->incompatible_features & qcow2::incompatible::kDirty) != 0;
}

bool data_file_raw(const Header& header) {
  return (header.autoclear_features & qcow2::autoclear::kDataFileRaw) != 0;
}

const char* true_or_false(bool value) {
  return value ? "true" : "false";
}

std::string date_text(const Snapshot& snapshot) {
  const time_t seconds = snapshot.date_seconds;
  tm local{};
  char text[32] = "?";
  if (::localtime_r(&seconds, &local) != nullptr)
    (void)::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local);
  return text;
}

std::string vm_clock_text(const Snapshot& snapshot) {
  const uint64_t seconds = snapshot.vm_clock_nanoseconds / kNanoseconds;
  return fmt::format("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60,
                     snapshot.vm_clock_nanoseconds % kNanoseconds / 1'000'000);
}

// Columns as wide as what is in them; the first two to the left, numbers to the right.
std::string snapshot_list(const std::vector<Snapshot>& snapshots, const Palette& palette) {
  std::vector<std::vector<std::string>> rows = {
      {"ID", "TAG", "DISK SIZE", "VM SIZE", "DATE", "VM CLOCK"}};
  for (const Snapshot& it : snapshots)
    rows.push_back({printable(it.id), printable(it.name), human_size(it.disk_size),
                    human_size(it.vm_state_size), date_text(it), vm_clock_text(it)});
  std::vector<size_t> widths(rows.front().size());
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text = palette.bold("Snapshot list:") + "\n";
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i)
      line += i < 2 ? fmt::format("{:<{}}  ", row[i], widths[i])
                    : fmt::format("{:>{}}  ", row[i], widths[i]);
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
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

ordered_json snapshot_json(const Snapshot& snapshot) {
  ordered_json json;
  json["id"] = snapshot.id;
  json["name"] = snapshot.name;
  json["disk-size"] = snapshot.disk_size;
  json["vm-state-size"] = snapshot.vm_state_size;
  json["date-sec"] = snapshot.date_seconds;
  json["date-nsec"] = snapshot.date_nanoseconds;
  json["vm-clock-sec"] = snapshot.vm_clock_nanoseconds / kNanoseconds;
  json["vm-clock-nsec"] = snapshot.vm_clock_nanoseconds % kNanoseconds;
  if (snapshot.instruction_count != UINT64_MAX) json["icount"] = snapshot.instruction_count;
  return json;
}

ordered_json format_specific_json(const Header& header) {
  ordered_json data;
  data["compat"] = compat(header);
  data["compression-type"] = to_string(header.compression_type);
  if (header.version > 2) data["lazy-refcounts"] = lazy_refcounts(header);
  data["refcount-bits"] = header.refcount_bits();
  if (header.version > 2) {
    data["corrupt"] = corrupt(header);
    data["extended-l2"] = header.extended_l2();
  }
  if (header.has_data_file()) {
    if (const auto name = header.data_file()) data["data-file"] = *name;
    data["data-file-raw"] = data_file_raw(header);
  }
  return {{"type", "qcow2"}, {"data", data}};
}

}  // namespace

std::string info_report(const ImageInfo& info, bool verbose, const Palette& palette) {
  std::string text;
  const auto line = [&](std::string_view name, std::string_view value) {
    text += fmt::format("{}: {}\n", name, printable(value));
  };
  line("image", info.filename);
  line("file format", to_string(info.format));
  line("virtual size",
       fmt::format("{} ({} bytes)", human_size(info.virtual_size), info.virtual_size));
  line("disk size", human_size(info.disk_size));
  line("file length", fmt::format("{} ({} bytes)", human_size(info.file_length), info.file_length));
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
  if (!info.snapshots.empty()) text += snapshot_list(info.snapshots, palette);

  text += palette.bold("Format specific information:") + "\n";
  line("    compat", compat(header));
  line("    compression type", to_string(header.compression_type));
  if (header.version > 2) line("    lazy refcounts", true_or_false(lazy_refcounts(header)));
  line("    refcount bits", fmt::format("{}", header.refcount_bits()));
  if (header.has_data_file()) {
    line("    data file", header.data_file().value_or("not named"));
    line("    data file raw", true_or_false(data_file_raw(header)));
  }
  if (header.version > 2) {
    line("    corrupt", true_or_false(corrupt(header)));
    line("    extended l2", true_or_false(header.extended_l2()));
  }
  if (verbose) text += layout(header, palette);
  return text;
}

std::string info_report_json(const ImageInfo& info) {
  ordered_json json;
  json["filename"] = info.filename;
  json["format"] = to_string(info.format);
  json["virtual-size"] = info.virtual_size;
  json["actual-size"] = info.disk_size;
  json["file-length"] = info.file_length;
  json["dirty-flag"] = dirty(info);
  if (info.header) {
    const Header& header = *info.header;
    json["cluster-size"] = header.geometry().cluster_size();
    if (!header.backing_file.empty()) {
      json["backing-filename"] = header.backing_file;
      json["full-backing-filename"] = info.full_backing_filename;
      if (const auto format = header.backing_format()) json["backing-filename-format"] = *format;
    }
    for (const Snapshot& it : info.snapshots) json["snapshots"].push_back(snapshot_json(it));
    json["format-specific"] = format_specific_json(header);
  }
  // Names that are not UTF-8 must not make it fail.
  return json.dump(4, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace tool
