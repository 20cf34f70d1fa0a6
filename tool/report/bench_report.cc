#include "tool/report/bench_report.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

using bench::Comparison;
using bench::Load;
using bench::Measurement;
using nlohmann::ordered_json;

struct Percentile {
  const char* name;
  double percent;
};
constexpr std::array<Percentile, 4> kPercentiles{
    {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}}};

// A smaller share of holes is not reported.
constexpr double kFewHoles = 0.01;

std::string rate(double bytes_per_second) {
  return human_size(static_cast<uint64_t>(bytes_per_second)) + "/s";
}

std::string latency_line(const char* name, const bench::Histogram& latency) {
  std::string line = fmt::format("  {:<12} {:>9}", name, short_time(double(latency.min())));
  for (const Percentile& it : kPercentiles)
    line += fmt::format(" {:>9}", short_time(double(latency.percentile(it.percent))));
  return line + fmt::format(" {:>9}\n", short_time(double(latency.max())));
}

std::string latency_head() {
  std::string line = fmt::format("  {:<12} {:>9}", "", "min");
  for (const Percentile& it : kPercentiles) line += fmt::format(" {:>9}", it.name);
  return line + fmt::format(" {:>9}\n", "max");
}

std::string cache_line(const Measurement& result) {
  if (!result.cached_before || !result.cached_after) return "";
  return fmt::format(
      "  {:<12}{}{} of the {} of its files before, {} after\n", "page cache",
      result.cached_before->sampled ? "about " : "", human_size(result.cached_before->cached),
      human_size(result.cached_before->length), human_size(result.cached_after->cached));
}

std::string hole_line(const Measurement& result) {
  if (!result.holes || *result.holes < kFewHoles) return "";
  return fmt::format("  {:<12}{:.0f}% of the requests meet nothing that is stored\n", "holes",
                     *result.holes * 100);
}

// Returns the line in the form of qemu-img bench.
std::string sending_line(const Load& load) {
  return fmt::format(
      "Sending {} {} requests, {} bytes each, {} in parallel ({} offset {}, step size {})\n",
      load.count ? fmt::format("{}", *load.count)
                 : fmt::format("{:g} seconds of", load.duration->count()),
      load.write ? "write" : "read", load.block, load.depth,
      load.random ? "random, from" : "starting at", load.offset, load.stride());
}

std::string flush_line(const Load& load) {
  if (!load.write || load.flush_interval == 0) return "";
  return fmt::format("Sending flush every {} {}requests\n", load.flush_interval,
                     load.drain ? "" : "undrained ");
}

ordered_json json_of(const bench::Histogram& latency) {
  ordered_json json;
  json["min"] = latency.min();
  json["mean"] = latency.mean();
  for (const Percentile& it : kPercentiles) json[it.name] = latency.percentile(it.percent);
  json["max"] = latency.max();
  return json;
}

ordered_json json_of(const CachedPages& pages) {
  ordered_json json;
  json["bytes"] = pages.cached;
  json["file-length"] = pages.length;
  json["sampled"] = pages.sampled;
  return json;
}

ordered_json json_of(const Load& load) {
  ordered_json json;
  json["operation"] = load.write ? "write" : "read";
  json["order"] = load.random ? "random" : "sequential";
  if (load.count) json["count"] = *load.count;
  if (load.duration) json["duration"] = load.duration->count();
  json["depth"] = load.depth;
  json["block-size"] = load.block;
  json["step"] = load.stride();
  json["offset"] = load.offset;
  if (load.random) json["seed"] = load.seed;
  if (load.write) {
    json["pattern"] = load.pattern;
    json["flush-interval"] = load.flush_interval;
    json["flush-each"] = load.flush_each;
  }
  return json;
}

ordered_json json_of(const Measurement& result) {
  ordered_json json;
  json["filename"] = result.name;
  json["format"] = result.format;
  json["virtual-size"] = result.size;
  json["requests"] = result.requests;
  json["bytes"] = result.requests * result.block;
  json["seconds"] = result.elapsed.count();
  json["iops"] = result.requests_per_second();
  json["bytes-per-second"] = result.bytes_per_second();
  json["latency-ns"] = json_of(result.tally.latency);
  if (result.tally.flushes.count() > 0) {
    json["flushes"] = result.tally.flushes.count();
    json["flush-latency-ns"] = json_of(result.tally.flushes);
  }
  if (result.flush.count() > 0) json["final-flush-seconds"] = result.flush.count();
  if (result.cached_before) json["page-cache-before"] = json_of(*result.cached_before);
  if (result.cached_after) json["page-cache-after"] = json_of(*result.cached_after);
  if (result.holes) json["hole-share"] = *result.holes;
  return json;
}

ordered_json json_of(const bench::Spread& spread) {
  ordered_json json;
  json["min"] = spread.min;
  json["median"] = spread.median;
  json["max"] = spread.max;
  return json;
}

struct VerdictText {
  const char* key;
  const char* words;
};

VerdictText words_of(Comparison::Verdict verdict) {
  switch (verdict) {
    case Comparison::Verdict::kAFaster:
      return {"a-faster", "A is faster: its slowest round is faster than the fastest round of B"};
    case Comparison::Verdict::kBFaster:
      return {"b-faster", "B is faster: its slowest round is faster than the fastest round of A"};
    case Comparison::Verdict::kALikely:
      return {"a-likely",
              "A was faster in every round, but by less than the rounds differ among themselves"};
    case Comparison::Verdict::kBLikely:
      return {"b-likely",
              "B was faster in every round, but by less than the rounds differ among themselves"};
    case Comparison::Verdict::kUnclear:
      break;
  }
  return {"unclear", "These rounds show no difference"};
}

}  // namespace

std::string short_time(double nanoseconds) {
  constexpr std::array<const char*, 4> kUnits{"ns", "us", "ms", "s"};
  size_t unit = 0;
  while (nanoseconds >= 999.5 && unit + 1 < kUnits.size()) {
    nanoseconds /= 1000;
    ++unit;
  }
  const int digits = unit == 0 || nanoseconds >= 99.95 ? 0 : nanoseconds >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f} {}", nanoseconds, digits, kUnits[unit]);
}

std::string bench_report(const Measurement& result, const Load& load) {
  std::string text = sending_line(load) + flush_line(load);
  text += fmt::format("Run completed in {:3.3f} seconds.\n\n", result.elapsed.count());
  text += fmt::format("  {:<12} {:>9}   {:.0f} requests/s\n", "throughput",
                      rate(result.bytes_per_second()), result.requests_per_second());
  text += latency_head() + latency_line("latency", result.tally.latency);
  if (result.tally.flushes.count() > 0) text += latency_line("flushes", result.tally.flushes);
  if (result.flush.count() > 0)
    text += fmt::format("  {:<12} {:>9}   not counted above\n", "last flush",
                        short_time(result.flush.count() * 1e9));
  return text + cache_line(result) + hole_line(result);
}

std::string bench_report_json(const Measurement& result, const Load& load) {
  ordered_json json = json_of(result);
  json["load"] = json_of(load);
  return json_text(json);
}

std::string bench_report(const Comparison& result, const bench::ComparisonOptions& options) {
  using Round = Comparison::Round;
  const Round& first = result.rounds.front();
  std::string text = sending_line(options.load) + flush_line(options.load);
  text += fmt::format("A: {}\nB: {}\n", printable(first.a.name), printable(first.b.name));
  if (first.a.size != first.b.size)
    text += fmt::format("The disks differ in size: only the first {} of each are used.\n",
                        human_size(std::min(first.a.size, first.b.size)));
  text += fmt::format("\n  {:<8} {:>13} {:>13} {:>9}\n", "round", "A", "B", "B/A");
  for (size_t i = 0; i < result.rounds.size(); ++i) {
    const Round& round = result.rounds[i];
    text += fmt::format("  {:<8} {:>13} {:>13} {:>9.2f}\n", i + 1, rate(round.a.bytes_per_second()),
                        rate(round.b.bytes_per_second()), round.ratio());
  }
  const bench::Spread a = result.throughput(&Round::a);
  const bench::Spread b = result.throughput(&Round::b);
  const bench::Spread ratio = result.ratio();
  text += fmt::format("  {:<8} {:>13} {:>13} {:>9.2f}\n", "median", rate(a.median), rate(b.median),
                      ratio.median);
  text += fmt::format("  {:<8} {:>12.0f}% {:>12.0f}%   {:.2f} - {:.2f}\n\n", "spread",
                      (a.max - a.min) / a.median * 100, (b.max - b.min) / b.median * 100, ratio.min,
                      ratio.max);
  text += latency_head() + latency_line("latency A", result.tally(&Round::a).latency) +
          latency_line("latency B", result.tally(&Round::b).latency);
  const Measurement& last = result.rounds.back().a;
  const Measurement& last_b = result.rounds.back().b;
  for (const auto& [name, it] : {std::pair("A", &last), std::pair("B", &last_b)}) {
    const std::string lines = cache_line(*it) + hole_line(*it);
    if (!lines.empty()) text += fmt::format("  last round of {}:\n{}", name, lines);
  }
  return text + fmt::format("\n{}.\n", words_of(result.verdict()).words);
}

std::string bench_report_json(const Comparison& result, const bench::ComparisonOptions& options) {
  using Round = Comparison::Round;
  ordered_json json;
  json["load"] = json_of(options.load);
  json["verdict"] = words_of(result.verdict()).key;
  json["rounds-won-by-b"] = result.rounds_won_by_b();
  json["ratio"] = json_of(result.ratio());
  json["a-bytes-per-second"] = json_of(result.throughput(&Round::a));
  json["b-bytes-per-second"] = json_of(result.throughput(&Round::b));
  json["a-latency-ns"] = json_of(result.tally(&Round::a).latency);
  json["b-latency-ns"] = json_of(result.tally(&Round::b).latency);
  json["rounds"] = ordered_json::array();
  for (const Round& round : result.rounds) {
    ordered_json both;
    both["a"] = json_of(round.a);
    both["b"] = json_of(round.b);
    both["ratio"] = round.ratio();
    json["rounds"].push_back(std::move(both));
  }
  return json_text(json);
}

}  // namespace vc::tool
