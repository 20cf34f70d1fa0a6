#include "tool/report/check_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"
#include "tool/text/survey_text.h"

namespace vc::tool {

using nlohmann::ordered_json;
using qcow2::Finding;

namespace {

const char* label(const Finding& it) {
  // An overlap with severity "note" is counted separately as an error.
  if (it.kind == Finding::Kind::kOverlap) return "ERROR";
  switch (it.severity) {
    case Finding::Severity::kNote:
      return it.kind == Finding::Kind::kLostReferences ? "WARNING" : "Note:";
    case Finding::Severity::kLeak:
      return "Leaked";
    case Finding::Severity::kCorruption:
    case Finding::Severity::kCheckError:
      break;
  }
  return "ERROR";
}

double percent(uint64_t part, uint64_t all) {
  return all == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(all);
}

// Formats a table entry as a string: some JSON readers lose bits of numbers.
ordered_json entry_json(uint64_t word) {
  return fmt::format("{:#018x}", word);
}

ordered_json finding_json(const Finding& it, uint64_t cluster_size) {
  ordered_json json;
  json["message"] = describe(it, cluster_size);
  json["kind"] = to_string(it.kind);
  json["severity"] = to_string(it.severity);
  json["times"] = it.times;
  json["host-offset"] = it.host.value();
  if (it.guest) json["guest-offset"] = it.guest->value();
  if (it.guest_length > 0) json["guest-length"] = it.guest_length;
  if (it.guest && it.snapshot != Finding::kActive) json["snapshot-index"] = it.snapshot;
  if (it.entry) json["entry-offset"] = it.entry->value();
  json["found"] = is_entry(it.kind) ? entry_json(it.found) : ordered_json(it.found);
  json["expected"] = is_entry(it.kind) ? entry_json(it.expected) : ordered_json(it.expected);
  json["repairable"] = it.repairable;
  return json;
}

const char* leaks_text(const qcow2::CheckSums& sums) {
  if (sums.references_lost)
    return "They may hold data of the guest, because a table that referred to them seems lost.";
  if (sums.references_unknown)
    return "They may hold data of the guest, because not all references could be followed.";
  return "They take space, but do no harm to data.";
}

// Says how to get at the data of a damaged image. Empty if the image is not damaged.
std::string salvage_advice(const CheckReport& report) {
  const qcow2::CheckSums& sums = report.sums;
  const bool hidden = sums.references_unknown && sums.leaks > 0;
  if (sums.corruptions + sums.check_errors + sums.undecodable_clusters == 0 && !hidden) return "";
  if (report.counts_left || report.entries_left) return "";  // check_repairs() has said it
  return "virt-compact copy --salvage copies the readable data.\n";
}

}  // namespace

int check_exit_code(const qcow2::CheckSums& sums) {
  if (sums.check_errors > 0) return kCheckFailed;
  if (sums.corruptions > 0) return kCheckCorrupt;
  if (sums.leaks > 0) return kCheckLeaks;
  return 0;
}

std::string check_findings(const CheckReport& report, const CheckLog& log) {
  std::string text;
  for (const Finding& it : log.findings())
    text += fmt::format("{} {}\n", label(it), describe(it, report.geometry.cluster_size()));
  for (const auto& [kind, count] : log.omitted())
    text += fmt::format("… and {} more of {}\n", count, to_string(kind));
  return text;
}

std::string check_repairs(const CheckReport& report) {
  std::string text;
  if (report.counts_left)
    text +=
        "Refcounts were not lowered: some references cannot be found, so clusters that look leaked "
        "may be in use.\n";
  if (report.entries_left)
    text += "Entries of tables that overlap another structure were not changed.\n";
  if (!text.empty())
    text +=
        "virt-compact copy --salvage copies the readable data; --lossy frees clusters that seem "
        "unused.\n\n";
  if (report.dry_run)
    return text + fmt::format(
                      "A repair would fix {} leaked clusters and {} corruptions.  Nothing was "
                      "written.\n\n",
                      report.leaks_fixed, report.corruptions_fixed);
  if (report.undo_full)
    text +=
        "Some free clusters were not deallocated: there is not enough space for the undo file.  "
        "With --undo none, no undo file is made.\n\n";
  if (!report.has_written) return text;
  if (report.leaks_fixed + report.corruptions_fixed > 0 || report.deallocated == 0)
    text += fmt::format(
        "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} "
        "corruptions\n\n",
        report.leaks_fixed, report.corruptions_fixed);
  if (report.deallocated > 0)
    text +=
        fmt::format("{} of free clusters were deallocated{}.\n\n", human_size(report.deallocated),
                    report.undo_file.empty() ? "" : "; the undo file has their old content");
  if (report.undo_file.empty()) return text;
  return text + fmt::format("To undo the repair: virt-compact check --apply-undo {} {}\n\n",
                            printable(report.undo_file), printable(report.filename));
}

std::string check_summary(const CheckReport& report) {
  // Lines that scripts look for are identical to qemu-img's.
  const qcow2::CheckSums& sums = report.sums;
  std::string text;
  if (sums.corruptions == 0 && sums.leaks == 0 && sums.check_errors == 0)
    text += "No errors were found on the image.\n";
  if (sums.corruptions > 0)
    text += fmt::format(
        "\n{} errors were found on the image.\nSome data is damaged, or will be damaged by writes "
        "to the image.\n",
        sums.corruptions);
  if (sums.leaks > 0)
    text += fmt::format("\n{} leaked clusters were found on the image.\n{}\n", sums.leaks,
                        leaks_text(sums));
  if (sums.check_errors > 0)
    text += fmt::format(
        "\n{} internal errors have occurred during the check.\nSome parts of the image could not "
        "be checked.\n",
        sums.check_errors);
  text += salvage_advice(report);
  if (sums.needs_rebuild) text += "The refcounts must be rebuilt.\n";
  if (report.deep && sums.decoded_clusters + sums.undecodable_clusters > 0)
    text += fmt::format("{} compressed clusters were decoded, {} could not be\n",
                        sums.decoded_clusters, sums.undecodable_clusters);
  if (sums.total_clusters > 0 && sums.allocated_clusters > 0)
    text +=
        fmt::format("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n",
                    sums.allocated_clusters, sums.total_clusters,
                    percent(sums.allocated_clusters, sums.total_clusters),
                    percent(sums.fragmented_clusters, sums.allocated_clusters),
                    percent(sums.compressed_clusters, sums.allocated_clusters));
  if (sums.order.runs > 0)
    text += fmt::format("Fragmentation: {}\n", order_text(sums.order, report.geometry));
  if (sums.image_end_offset > 0)
    text += fmt::format("Image end offset: {}\n", sums.image_end_offset);
  return text;
}

std::string check_report_json(const CheckReport& report, const CheckLog& log) {
  const qcow2::CheckSums& sums = report.sums;
  ordered_json json;
  const auto unless_0 = [&](const char* key, uint64_t value) {
    if (value != 0) json[key] = value;
  };
  json["filename"] = report.filename;
  json["format"] = "qcow2";
  json["check-errors"] = sums.check_errors;
  unless_0("image-end-offset", sums.image_end_offset);
  unless_0("corruptions", sums.corruptions);
  unless_0("leaks", sums.leaks);
  if (report.dry_run) {
    json["dry-run"] = true;
    json["would-fix"] = {{"corruptions", report.corruptions_fixed}, {"leaks", report.leaks_fixed}};
  } else {
    unless_0("corruptions-fixed", report.corruptions_fixed);
    unless_0("leaks-fixed", report.leaks_fixed);
  }
  unless_0("total-clusters", sums.total_clusters);
  unless_0("allocated-clusters", sums.allocated_clusters);
  unless_0("fragmented-clusters", sums.fragmented_clusters);
  unless_0("compressed-clusters", sums.compressed_clusters);
  if (sums.needs_rebuild) json["needs-rebuild"] = true;
  if (sums.references_lost) json["references-lost"] = true;
  if (report.deep) {
    json["decoded-clusters"] = sums.decoded_clusters;
    json["undecodable-clusters"] = sums.undecodable_clusters;
  }
  json["fragmentation"] = order_json(sums.order, report.geometry);
  unless_0("given-back", report.deallocated);
  if (report.undo_full) json["undo-full"] = true;
  if (report.counts_left) json["counts-left"] = true;
  if (report.entries_left) json["entries-left"] = true;
  if (!report.undo_file.empty()) json["undo-file"] = report.undo_file;
  json["findings"] = ordered_json::array();
  for (const Finding& it : log.findings())
    json["findings"].push_back(finding_json(it, report.geometry.cluster_size()));
  for (const auto& [kind, count] : log.omitted()) json["findings-omitted"][to_string(kind)] = count;
  return json_text(json);
}

}  // namespace vc::tool
