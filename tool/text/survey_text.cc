#include "tool/text/survey_text.h"

#include <fmt/format.h>

#include "tool/text/size_text.h"

namespace vc::tool {

using nlohmann::ordered_json;
using qcow2::Fragmentation;
using qcow2::Geometry;
using qcow2::HostUse;
using qcow2::Survey;

namespace {

std::string count_text(uint64_t count, const char* one, const char* many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

// Formats a percentage; 100.0 means all, and 0.0 means none.
std::string percent_text(double percent) {
  if (percent > 0 && percent < 0.1) return "less than 0.1";
  if (percent < 100 && percent > 99.9) return "more than 99.9";
  return fmt::format("{:.1f}", percent);
}

}  // namespace

std::string order_text(const Fragmentation::Figures& order, const Geometry& geometry) {
  if (order.runs == 0) return "none: there is no data";
  if (order.runs == 1) return fmt::format("0.0 % (1 run of {})", human_size(order.longest_run));
  return fmt::format("{} % ({} runs of {} on average, the longest {}; {})",
                     percent_text(order.percent(geometry)), order.runs,
                     human_size(order.mean_run()), human_size(order.longest_run),
                     count_text(order.seeks, "seek", "seeks"));
}

std::string compressed_text(const Fragmentation::Figures& order, const Geometry& geometry) {
  if (order.compressed_clusters == 0) return {};
  const auto plain = static_cast<double>(order.compressed_clusters * geometry.cluster_size());
  std::string text =
      fmt::format("{} of {} each, in {} ({:.0f} %)",
                  count_text(order.compressed_clusters, "cluster", "clusters"),
                  human_size(geometry.cluster_size()), human_size(order.compressed_bytes),
                  100 * static_cast<double>(order.compressed_bytes) / plain);
  if (order.compressed_steps > 0)
    text += fmt::format(", {} % next to the previous one",
                        percent_text(100.0 * static_cast<double>(order.compressed_steps_near) /
                                     static_cast<double>(order.compressed_steps)));
  return text;
}

ordered_json order_json(const Fragmentation::Figures& order, const Geometry& geometry) {
  ordered_json json;
  json["percent"] = order.percent(geometry);
  json["runs"] = order.runs;
  json["mean-run"] = order.mean_run();
  json["longest-run"] = order.longest_run;
  json["read-bytes"] = order.read_bytes;
  json["seeks"] = order.seeks;
  json["plain-bytes"] = order.plain_bytes;
  json["compressed-clusters"] = order.compressed_clusters;
  json["compressed-bytes"] = order.compressed_bytes;
  json["compressed-steps"] = order.compressed_steps;
  json["compressed-steps-near"] = order.compressed_steps_near;
  return json;
}

ordered_json space_json(const Survey& survey, const Geometry& geometry) {
  const auto bytes = [&](uint64_t clusters) { return clusters * geometry.cluster_size(); };
  ordered_json json;
  json["live"] = bytes(survey.live());
  json["metadata"] = bytes(survey.of(HostUse::kMetadata));
  json["data"] = bytes(survey.of(HostUse::kData));
  json["compressed"] = bytes(survey.of(HostUse::kCompressed));
  json["reserved"] = bytes(survey.of(HostUse::kReserved));
  json["snapshots"] = bytes(survey.of(HostUse::kSnapshot));
  json["allocated"] = bytes(survey.allocated());
  json["leaked"] = bytes(survey.of(HostUse::kLeaked));
  json["free"] = bytes(survey.of(HostUse::kFree));
  return json;
}

}  // namespace vc::tool
