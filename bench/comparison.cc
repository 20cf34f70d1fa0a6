#include "bench/comparison.h"

#include <algorithm>

namespace vc::bench {

Spread Spread::of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {values.front(), median, values.back()};
}

Spread Comparison::ratio() const {
  std::vector<double> values;
  values.reserve(rounds.size());
  for (const Round& round : rounds) values.push_back(round.ratio());
  return Spread::of(values);
}

Spread Comparison::throughput(const Measurement Round::*which) const {
  std::vector<double> values;
  values.reserve(rounds.size());
  for (const Round& round : rounds) values.push_back((round.*which).bytes_per_second());
  return Spread::of(values);
}

Tally Comparison::tally(Measurement Round::*which) const {
  Tally all;
  for (const Round& round : rounds) all.add((round.*which).tally);
  return all;
}

unsigned Comparison::rounds_won_by_b() const {
  return static_cast<unsigned>(
      std::count_if(rounds.begin(), rounds.end(), [](const Round& it) { return it.ratio() > 1; }));
}

Comparison::Verdict Comparison::verdict() const {
  const Spread a = throughput(&Round::a);
  const Spread b = throughput(&Round::b);
  const unsigned won = rounds_won_by_b();
  // A single round shows nothing about the variation between rounds.
  if (rounds.size() < 2 || (won > 0 && won < rounds.size())) return Verdict::kUnclear;
  if (won == 0) return a.min > b.max ? Verdict::kAFaster : Verdict::kALikely;
  return b.min > a.max ? Verdict::kBFaster : Verdict::kBLikely;
}

Result<Comparison> compare(const ComparisonOptions& options, const Cancel& cancel) {
  uint64_t before = 0;  // bytes of the finished runs
  MeasureOptions of_run;
  of_run.load = options.load;
  of_run.drop_cache = options.drop_cache;
  of_run.progress = [&](uint64_t bytes) {
    if (options.progress) options.progress(before + bytes);
  };
  const auto measure_next = [&](const DeviceName& device) -> Result<Measurement> {
    of_run.device = device;
    auto result = measure(of_run, cancel);
    if (result) before += result->requests * result->block;
    return result;
  };
  // Both disks get the same offsets.
  ASSIGN_OR_RETURN(const uint64_t size_a, disk_size(options.a, cancel));
  ASSIGN_OR_RETURN(const uint64_t size_b, disk_size(options.b, cancel));
  of_run.load.span = std::min({options.load.span, size_a, size_b});
  Comparison comparison;
  if (options.runs() > 2 * options.rounds) {
    RETURN_IF_ERROR(measure_next(options.a));
    RETURN_IF_ERROR(measure_next(options.b));
  }
  for (unsigned i = 0; i < options.rounds; ++i) {
    ASSIGN_OR_RETURN(auto a, measure_next(options.a));
    ASSIGN_OR_RETURN(auto b, measure_next(options.b));
    comparison.rounds.push_back({std::move(a), std::move(b)});
  }
  return comparison;
}

}  // namespace vc::bench
