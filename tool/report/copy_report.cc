#include "tool/report/copy_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/printable.h"
#include "tool/report/space_report.h"
#include "tool/terminal/progress_bar.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

using copy::CopySummary;
using nlohmann::ordered_json;

// A smaller difference is not reported if it is also below one per cent.
constexpr uint64_t kNoticeable = 16 << 20;
// Maximum lost ranges in the text report.
constexpr size_t kLostShown = 50;

// 1234567 -> "1,234,567".
std::string grouped(uint64_t number) {
  const std::string digits = fmt::format("{}", number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

struct Change {
  uint64_t amount;  // bytes, absolute value
  bool smaller;
  double percent;  // of the size before
};

Change change(uint64_t before, uint64_t after) {
  Change it{};
  it.smaller = after <= before;
  it.amount = it.smaller ? before - after : after - before;
  // Growth from zero counts as 100 per cent.
  it.percent = before > 0  ? static_cast<double>(it.amount) * 100 / static_cast<double>(before)
               : after > 0 ? 100
                           : 0;
  return it;
}

std::string percent_text(const Change& it) {
  return fmt::format("{:.1f}%", it.percent);
}

std::string headline(const copy::CopyOptions& options, const CopySummary& summary,
                     const Palette& palette) {
  if (summary.predicted)
    return palette.bold(
        summary.format == qcow2::Format::kQcow2
            ? fmt::format("Would be {} long", human_size(*summary.predicted))
            : fmt::format("Would store {} of data", human_size(*summary.predicted)));
  if (!summary.destination) return palette.bold("Copied");
  const auto& after = *summary.destination;
  if (!summary.source) return palette.bold(human_size(after.blocks) + " on the disk");
  // Block devices and files without data have no blocks: compares lengths instead.
  const bool blocks = summary.source->blocks > 0;
  const char* where = blocks ? "on the disk" : "in length";
  const Change it = blocks ? change(summary.source->blocks, after.blocks)
                           : change(summary.source->length, after.length);
  if (it.percent < 1 && it.amount < kNoticeable)
    return palette.bold(fmt::format("About as much {} as before", where));
  if (!it.smaller)
    return palette.bold(fmt::format("Takes {} more {} than before", human_size(it.amount), where)) +
           (options.compression ? "" : ": -c would compress it");
  return palette.good(
      fmt::format("Saved {} ({}) {}", human_size(it.amount), percent_text(it), where));
}

std::string size_row(std::string_view name, uint64_t before, uint64_t after) {
  const Change it = change(before, after);
  const std::string sign = it.smaller ? "" : "-";
  return fmt::format("  {:<8} {:>9} {:>11} {:>11} {:>8}\n", name, human_size(before),
                     human_size(after), sign + human_size(it.amount),
                     before > 0 ? sign + percent_text(it) : "");
}

std::string size_table(const CopySummary& summary) {
  if (!summary.destination) return "";
  const auto& after = *summary.destination;
  if (!summary.source)
    return fmt::format("  {:<8} {:>9}\n  {:<8} {:>9}\n", "on disk", human_size(after.blocks),
                       "length", human_size(after.length));
  return fmt::format("  {:<8} {:>9} {:>11} {:>11}\n", "", "before", "after", "saved") +
         size_row("on disk", summary.source->blocks, after.blocks) +
         size_row("length", summary.source->length, after.length);
}

std::string verify_line(const CopySummary& summary) {
  if (!summary.verified) return "";
  const auto& verified = *summary.verified;
  return fmt::format("  verified: {} read back{}, equal to the source\n", human_size(verified.read),
                     verified.shared > 0
                         ? fmt::format(", {} in the same blocks", human_size(verified.shared))
                         : "");
}

std::string cloned_line(const CopySummary& summary) {
  if (summary.cloned == 0) return "";
  return fmt::format("  cloned: {} share blocks with the source\n", human_size(summary.cloned));
}

std::string cluster_row(std::string_view name, uint64_t count, const std::string& remark) {
  return fmt::format("  {:<12} {:>11}{}{}\n", name, grouped(count), remark.empty() ? "" : "  ",
                     remark);
}

std::string snapshot_rows(const CopySummary& summary) {
  if (summary.snapshots == 0) return "";
  return cluster_row("snapshots", summary.snapshots,
                     grouped(summary.snapshot_clusters) + " more clusters that only they have");
}

std::string cluster_table(const CopySummary& summary) {
  const uint64_t total =
      summary.data_clusters + summary.compressed_clusters + summary.zero_clusters;
  std::string text = cluster_row("clusters", total, "of " + human_size(summary.cluster_size)) +
                     cluster_row("  data", summary.data_clusters, "");
  if (summary.compressed_clusters > 0)
    text += cluster_row("  compressed", summary.compressed_clusters,
                        summary.passed_through_clusters > 0
                            ? grouped(summary.passed_through_clusters) + " copied as they were"
                            : "");
  return text + cluster_row("  zero", summary.zero_clusters,
                            summary.found_zero_clusters > 0
                                ? fmt::format("left out; {} of them held stored zeros",
                                              grouped(summary.found_zero_clusters))
                                : "left out");
}

std::string time_line(const CopySummary& summary) {
  const double seconds = summary.elapsed.count();
  std::string text =
      fmt::format("  {} disk in {}", human_size(summary.virtual_size),
                  seconds < 60 ? fmt::format("{:.1f} s", seconds) : clock_text(seconds));
  // A rate over a shorter time is meaningless.
  if (seconds >= 0.1)
    text += fmt::format(
        ", {}/s",
        human_size(static_cast<uint64_t>(static_cast<double>(summary.virtual_size) / seconds)));
  return text + "\n";
}

uint64_t lost_bytes(const CopySummary& summary) {
  uint64_t bytes = 0;
  for (const qcow2::Loss& it : summary.lost) bytes += it.length;
  return bytes;
}

std::string lost_line(const CopySummary& summary) {
  if (summary.lost.empty()) return "";
  return fmt::format("  lost: {} in {} range{}, zeros in the copy\n",
                     human_size(lost_bytes(summary)), grouped(summary.lost.size()),
                     summary.lost.size() == 1 ? "" : "s");
}

ordered_json lost_json(const CopySummary& summary) {
  ordered_json all = ordered_json::array();
  for (const qcow2::Loss& it : summary.lost)
    all.push_back({{"start", it.at.value()},
                   {"length", it.length},
                   {"reason", qcow2::to_string(it.reason)},
                   {"message", qcow2::describe(it.reason)}});
  return all;
}

std::string skipped_line(const CopySummary& summary) {
  if (!summary.free_space) return "";
  return fmt::format("  skipped: {} of data that the guest does not use\n",
                     human_size(summary.free_space->stored)) +
         kept_whole(summary.free_space->inspection);
}

ordered_json size_json(const FileSize& size) {
  return {{"length", size.length}, {"blocks", size.blocks}};
}

}  // namespace

std::string copy_report(const copy::CopyOptions& options, const CopySummary& summary,
                        const Palette& palette) {
  const std::string sizes = size_table(summary);
  return fmt::format("{} -> {}\n{}\n\n{}{}{}\n{}{}{}{}{}", printable(options.source),
                     printable(options.destination), headline(options, summary, palette), sizes,
                     sizes.empty() ? "" : "\n", cluster_table(summary) + snapshot_rows(summary),
                     cloned_line(summary), verify_line(summary), lost_line(summary),
                     skipped_line(summary),
                     time_line(summary) + (summary.predicted ? "Nothing was written.\n" : ""));
}

std::string lost_ranges(const copy::CopyOptions& options, const CopySummary& summary) {
  std::string text;
  for (size_t i = 0; i < std::min(summary.lost.size(), kLostShown); ++i) {
    const qcow2::Loss& it = summary.lost[i];
    text += fmt::format("{}: lost: guest offset {:#x}, {} bytes: {}\n", printable(options.source),
                        it.at.value(), it.length, qcow2::describe(it.reason));
  }
  if (summary.lost.size() > kLostShown)
    text +=
        fmt::format("… and {} more ranges: --json lists all\n", summary.lost.size() - kLostShown);
  return text;
}

std::string copy_report_json(const copy::CopyOptions& options, const CopySummary& summary) {
  ordered_json json;
  json["source"] = options.source;
  json["destination"] = options.destination;
  json["format"] = qcow2::to_string(summary.format);
  if (summary.predicted) {
    json["dry-run"] = true;
    json["file-size"] = *summary.predicted;
  }
  json["virtual-size"] = summary.virtual_size;
  json["cluster-size"] = summary.cluster_size;
  if (summary.source) json["before"] = size_json(*summary.source);
  if (summary.destination) json["after"] = size_json(*summary.destination);
  json["clusters"] = {
      {"data", summary.data_clusters},
      {"compressed", summary.compressed_clusters},
      {"passed-through", summary.passed_through_clusters},
      {"zero", summary.zero_clusters},
      {"found-zero", summary.found_zero_clusters},
  };
  json["cloned"] = summary.cloned;
  if (summary.snapshots > 0)
    json["snapshots"] = {{"count", summary.snapshots}, {"clusters", summary.snapshot_clusters}};
  if (summary.verified)
    json["verified"] = {{"read", summary.verified->read},
                        {"shared", summary.verified->shared},
                        {"seconds", summary.verified->elapsed.count()}};
  if (options.salvage) {
    json["lost"] = lost_json(summary);
    json["lost-bytes"] = lost_bytes(summary);
  }
  if (summary.free_space) json["free-space"] = free_space_json(*summary.free_space);
  json["seconds"] = summary.elapsed.count();
  return json_text(json);
}

}  // namespace vc::tool
