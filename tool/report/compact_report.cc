#include "tool/report/compact_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/printable.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using nlohmann::ordered_json;

namespace {

std::string device_advice(const qcow2::InPlaceSummary& summary) {
  if (!summary.is_device) return "";
  return fmt::format(
      "  The device keeps its size. The image ends at {} bytes: the rest of the device is free\n"
      "  (a logical volume: lvreduce --size {}b).\n",
      summary.after.length, summary.after.length);
}

std::string headline(const std::string& disk, const qcow2::InPlaceSummary& summary, bool dry_run) {
  const std::string name = printable(disk);
  if (compact_gain(summary) > 0)
    return fmt::format("{} {} {} shorter{}", name, dry_run ? "would be" : "is",
                       human_size(compact_gain(summary)), summary.stopped ? " so far" : "");
  if (summary.zeros > 0)
    return fmt::format("{} {} without {} of zeros", name, dry_run ? "would be" : "is",
                       human_size(summary.zeros));
  if (summary.misplaced == 0) return name + " has no free clusters to fill";
  if (summary.stopped) return name + " is not in order yet";
  return fmt::format("{} {} in the order of its guest", name, dry_run ? "would be" : "is");
}

}  // namespace

uint64_t compact_gain(const qcow2::InPlaceSummary& summary) {
  return summary.before.length - std::min(summary.before.length, summary.after.length);
}

std::string compact_report(const std::string& disk, const qcow2::InPlaceSummary& summary,
                           bool dry_run, const std::string& more) {
  std::string text = headline(disk, summary, dry_run) + "\n\n";
  text += fmt::format("  {:<12} {:>9}  before {}\n", summary.is_device ? "end" : "length",
                      human_size(summary.after.length), human_size(summary.before.length));
  if (!dry_run && !summary.is_device)
    text += fmt::format("  {:<12} {:>9}  before {}\n", "on disk", human_size(summary.after.blocks),
                        human_size(summary.before.blocks));
  text += more;
  text += fmt::format("  {:<12} {:>9}{}\n", dry_run ? "to move" : "moved",
                      human_size(dry_run ? summary.to_move : summary.moved),
                      summary.has_data_file ? "  only tables: guest data is in another file" : "");
  if (summary.zeros > 0)
    text += fmt::format("  {:<12} {:>9}\n", dry_run ? "zeros to free" : "zeros freed",
                        human_size(summary.zeros));
  if (summary.misplaced > 0)
    text += fmt::format("  {:<12} {:>9}{}\n", "out of order", human_size(summary.misplaced),
                        dry_run ? "" : "  before");
  if (summary.compressed > 0)
    text += fmt::format("  {:<12} {:>9}\n", dry_run ? "to compress" : "compressed",
                        human_size(summary.compressed));
  if (summary.unordered > 0)
    text += fmt::format("  {:<12} {:>9}  compressed clusters, which stay where they are\n",
                        "not ordered", summary.unordered);
  if (summary.fixed > 0)
    text += fmt::format("  {:<12} {:>9}  clusters, whose refcounts are too high\n", "not moved",
                        summary.fixed);
  if (summary.leaks > 0)
    text +=
        fmt::format("  {:<12} {:>9}\n", dry_run ? "leaks to free" : "leaks freed", summary.leaks);
  if (summary.leaks_left > 0)
    text += fmt::format(
        "  {:<12} {:>9}  clusters stay, and so do their neighbours: see virt-compact check\n",
        "leaks left", summary.leaks_left);
  text += device_advice(summary);
  return text + fmt::format("\n  {} disk in {:.1f} s\n{}", human_size(summary.virtual_size),
                            summary.elapsed.count(), dry_run ? "Nothing was written.\n" : "");
}

ordered_json compact_report_json(const std::string& disk, const qcow2::InPlaceSummary& summary,
                                 bool dry_run) {
  ordered_json json;
  json["filename"] = disk;
  json["virtual-size"] = summary.virtual_size;
  json["snapshots"] = summary.snapshots;
  json["leaks"] = summary.leaks;
  json["leaks-left"] = summary.leaks_left;
  json["zeros"] = summary.zeros;
  json["to-move"] = summary.to_move;
  json["misplaced"] = summary.misplaced;
  json["compressed"] = summary.compressed;
  json["not-moved"] = summary.fixed;
  json["before"] = {{"length", summary.before.length}, {"actual-size", summary.before.blocks}};
  if (dry_run) {
    json["dry-run"] = true;
    json["after"] = {{"length", summary.after.length}};
  } else {
    json["moved"] = summary.moved;
    json["stopped"] = summary.stopped;
    json["after"] = {{"length", summary.after.length}, {"actual-size", summary.after.blocks}};
  }
  json["seconds"] = summary.elapsed.count();
  return json;
}

std::string warning_of_leaks(const std::string& disk, const qcow2::InPlaceSummary& summary) {
  if (summary.leaks_left == 0) return "";
  const bool one = summary.leaks_left == 1;
  return fmt::format(
      "{}: {} leaked cluster{}, since a table of zeros may have referred to {}: see virt-compact "
      "check, whose option --lossy frees leaks",
      disk, summary.leaks_left, one ? " stays where it is" : "s stay where they are",
      one ? "it" : "them");
}

}  // namespace vc::tool
