#include "tool/report/measure_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "tool/report/space_report.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using inspect::Measurement;
using nlohmann::ordered_json;

namespace {

// A file that exceeds the smallest by less than this share counts as equally small.
constexpr double kHardly = 0.05;

std::string codec_name(const std::optional<qcow2::CompressionType>& codec) {
  return codec ? qcow2::to_string(*codec) : "none";
}

double half_width_percent(const Measurement& measured) {
  if (measured.exact || measured.file_size == 0) return 0;
  const uint64_t off =
      std::max(measured.file_size - measured.low, measured.high - measured.file_size);
  return 100 * static_cast<double>(off) / static_cast<double>(measured.file_size);
}

ordered_json to_json(const Measurement& measured) {
  ordered_json json;
  json["required"] = measured.qemu.required;
  json["fully-allocated"] = measured.qemu.fully_allocated;
  if (measured.bitmaps) json["bitmaps"] = *measured.bitmaps;
  json["format"] = qcow2::to_string(measured.format);
  json["virtual-size"] = measured.virtual_size;
  if (measured.cluster_size != 0) json["cluster-size"] = measured.cluster_size;
  json["exact"] = measured.exact;
  json["file-size"] = measured.file_size;
  json["file-size-low"] = measured.low;
  json["file-size-high"] = measured.high;
  if (!measured.exact) {
    json["confidence"] = inspect::SizeEstimate::kConfidence;
    json["sampled-bytes"] = measured.sampled;
  }
  if (measured.free_space) json["free-space"] = free_space_json(*measured.free_space);
  return json;
}

std::string free_space_text(const Measurement& measured) {
  if (!measured.free_space) return "";
  return fmt::format("without {} ({}) of data that the guest does not use\n",
                     measured.free_space->stored, human_size(measured.free_space->stored)) +
         kept_whole(measured.free_space->inspection);
}

}  // namespace

std::string measure_report(const Measurement& measured) {
  std::string text = fmt::format("required size: {}\nfully allocated size: {}\n",
                                 measured.qemu.required, measured.qemu.fully_allocated);
  if (measured.bitmaps) text += fmt::format("bitmaps size: {}\n", *measured.bitmaps);
  // The lines above use QEMU's defaults for unset options: see inspect/measurement.h.
  const std::string kind =
      measured.cluster_size == 0
          ? std::string("as raw")
          : fmt::format("as qcow2 with clusters of {}", human_size(measured.cluster_size));
  if (measured.exact)
    return text +
           fmt::format("file size: {} ({}), exactly, {}\n", measured.file_size,
                       human_size(measured.file_size), kind) +
           free_space_text(measured);
  return text +
         fmt::format("file size: about {} ({}), from {} to {} with {:.0f} % confidence, {}\n",
                     measured.file_size, human_size(measured.file_size), human_size(measured.low),
                     human_size(measured.high), 100 * inspect::SizeEstimate::kConfidence, kind) +
         free_space_text(measured);
}

std::string measure_report_json(const Measurement& measured) {
  return json_text(to_json(measured));
}

const MeasuredField& smallest_field(const std::vector<MeasuredField>& fields) {
  return *std::min_element(fields.begin(), fields.end(), [](const auto& a, const auto& b) {
    return a.measured.file_size < b.measured.file_size;
  });
}

const MeasuredField& advised_field(const std::vector<MeasuredField>& fields) {
  const auto least = static_cast<double>(smallest_field(fields).measured.file_size);
  const MeasuredField* best = nullptr;
  for (const MeasuredField& it : fields) {
    if (static_cast<double>(it.measured.file_size) > least * (1 + kHardly)) continue;
    // Prefers the smallest clusters, but only with compression: uncompressed clusters are cheap to
    // read at any size. Among equals, prefers the smaller file.
    const auto rank = [](const MeasuredField& field) {
      return std::pair(field.codec ? field.cluster_bits : 0, field.measured.file_size);
    };
    if (!best || rank(it) < rank(*best)) best = &it;
  }
  return *best;
}

std::string measure_table_text(const std::vector<MeasuredField>& fields) {
  const MeasuredField& smallest = smallest_field(fields);
  const MeasuredField& advised = advised_field(fields);
  std::string text = fmt::format("{:>10}", "clusters");
  std::vector<std::string> codecs;
  for (const MeasuredField& it : fields)
    if (std::find(codecs.begin(), codecs.end(), codec_name(it.codec)) == codecs.end())
      codecs.push_back(codec_name(it.codec));
  for (const std::string& codec : codecs) text += fmt::format("  {:>18}", codec);
  double off = 0;
  for (size_t i = 0; i < fields.size(); ++i) {
    const MeasuredField& it = fields[i];
    if (i % codecs.size() == 0)
      text += fmt::format("\n{:>10}", human_size(uint64_t{1} << it.cluster_bits));
    const char* const mark = &it == &smallest ? " *" : "  ";
    text += fmt::format("  {:>16}{}", human_size(it.measured.file_size), mark);
    off = std::max(off, half_width_percent(it.measured));
  }
  text += "\n\n* the smallest";
  if (off > 0)
    text += fmt::format("; estimates, with an error of at most {:.1f} % with {:.0f} % confidence",
                        off, 100 * inspect::SizeEstimate::kConfidence);
  const uint64_t kib = (uint64_t{1} << advised.cluster_bits) >> 10;
  text += fmt::format("\nRecommended: --compression={} --cluster-size={}: {}",
                      codec_name(advised.codec),
                      kib < 1024 ? fmt::format("{}k", kib) : fmt::format("{}M", kib >> 10),
                      human_size(advised.measured.file_size));
  if (!advised.measured.exact)
    text += fmt::format(", from {} to {}", human_size(advised.measured.low),
                        human_size(advised.measured.high));
  if (advised.codec)
    text += fmt::format(".  The cost: a read of any 4 KiB reads and decodes {}",
                        human_size(uint64_t{1} << advised.cluster_bits));
  return text + ".\n";
}

std::string measure_table_json(const std::vector<MeasuredField>& fields) {
  ordered_json json;
  json["table"] = ordered_json::array();
  const auto with_choice = [](const MeasuredField& field) {
    ordered_json row;
    row["compression"] = codec_name(field.codec);
    row.update(to_json(field.measured));
    return row;
  };
  for (const MeasuredField& it : fields) json["table"].push_back(with_choice(it));
  json["smallest"] = with_choice(smallest_field(fields));
  json["advised"] = with_choice(advised_field(fields));
  return json_text(json);
}

}  // namespace vc::tool
