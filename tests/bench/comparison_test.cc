#include "bench/comparison.h"

#include "tests/catch_text.h"

using namespace vc;

using bench::Comparison;
using bench::Spread;
using Verdict = bench::Comparison::Verdict;

namespace {

// Returns rounds in which A and B took these seconds for the same work.
Comparison rounds_of(const std::vector<std::pair<double, double>>& seconds) {
  Comparison comparison;
  for (const auto& [a, b] : seconds) {
    Comparison::Round round;
    round.a.requests = round.b.requests = 1000;
    round.a.block = round.b.block = 4096;
    round.a.elapsed = std::chrono::duration<double>(a);
    round.b.elapsed = std::chrono::duration<double>(b);
    comparison.rounds.push_back(round);
  }
  return comparison;
}

}  // namespace

TEST_CASE("the summary of rounds has a median", "[comparison]") {
  CHECK(Spread::of({3, 1, 2}).median == 2);
  CHECK(Spread::of({4, 1, 2, 3}).median == 2.5);
  CHECK(Spread::of({4, 1, 2, 3}).min == 1);
  CHECK(Spread::of({4, 1, 2, 3}).max == 4);
}

TEST_CASE("a verdict claims only what the rounds show", "[comparison]") {
  CHECK(rounds_of({{2, 1}, {2.2, 1.1}}).verdict() == Verdict::kBFaster);
  CHECK(rounds_of({{1, 2}, {1.1, 2.2}}).verdict() == Verdict::kAFaster);
  // B wins every round, but its slowest round is slower than A's fastest.
  CHECK(rounds_of({{2, 1.9}, {3, 2.5}, {2.1, 2}}).verdict() == Verdict::kBLikely);
  CHECK(rounds_of({{1.9, 2}, {2.5, 3}}).verdict() == Verdict::kALikely);
  CHECK(rounds_of({{2, 1}, {1, 2}}).verdict() == Verdict::kUnclear);
  CHECK(rounds_of({{2, 1}}).verdict() == Verdict::kUnclear);

  const auto comparison = rounds_of({{2, 1}, {3, 2}, {1, 2}});
  CHECK(comparison.ratio().min == Approx(0.5));
  CHECK(comparison.ratio().median == Approx(1.5));
  CHECK(comparison.ratio().max == Approx(2));
  CHECK(comparison.rounds_won_by_b() == 2);
  CHECK(comparison.throughput(&Comparison::Round::a).median == Approx(4096 * 1000 / 2.0));
}
