#include "tests/qcow2/check/run_model.h"

#include <algorithm>
#include <cstdlib>

#include "tests/catch_text.h"

namespace vc::map_test {

using qcow2::Fragmentation;

namespace {

// Returns true if `b` follows `a` without an avoidable gap.
bool follows(const Piece& a, const Piece& b, uint64_t cluster_size) {
  if (!a.compressed) return b.at == a.end();
  if (!b.compressed) return b.at / cluster_size == (a.end() + cluster_size - 1) / cluster_size;
  // The stream of `a` may end at any byte of its last sector.
  return b.at == a.end() || (b.at > a.at && b.at / 512 == a.end() / 512 - 1);
}

}  // namespace

Fragmentation::Figures model(const std::vector<Piece>& pieces, uint64_t cluster_size) {
  Fragmentation::Figures figures;
  std::vector<std::vector<Piece>> runs;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& it = pieces[i];
    if (i == 0 || !follows(pieces[i - 1], it, cluster_size)) runs.emplace_back();
    runs.back().push_back(it);
    if (it.compressed) {
      ++figures.compressed_clusters;
      figures.compressed_bytes += it.length;
    } else {
      figures.plain_bytes += it.length;
    }
    if (i == 0) continue;
    const Piece& before = pieces[i - 1];
    const auto distance =
        std::abs(static_cast<int64_t>(it.at) - static_cast<int64_t>(before.end()));
    const bool is_near = distance <= 1 << 20;
    if (!follows(before, it, cluster_size) && !is_near) ++figures.seeks;
    if (before.compressed && it.compressed) {
      ++figures.compressed_steps;
      if (is_near) ++figures.compressed_steps_near;
    }
  }
  figures.runs = runs.size();
  for (const auto& run : runs) {
    uint64_t bytes = 0, end = 0;
    for (const Piece& it : run) {
      bytes += it.end() - std::max(it.at, std::min(end, it.end()));
      end = it.end();
    }
    figures.read_bytes += bytes;
    figures.longest_run = std::max(figures.longest_run, bytes);
  }
  return figures;
}

void check_equal(const Fragmentation::Figures& got, const Fragmentation::Figures& expected) {
  CHECK(got.plain_bytes == expected.plain_bytes);
  CHECK(got.compressed_clusters == expected.compressed_clusters);
  CHECK(got.compressed_bytes == expected.compressed_bytes);
  CHECK(got.runs == expected.runs);
  CHECK(got.longest_run == expected.longest_run);
  CHECK(got.read_bytes == expected.read_bytes);
  CHECK(got.seeks == expected.seeks);
  CHECK(got.compressed_steps == expected.compressed_steps);
  CHECK(got.compressed_steps_near == expected.compressed_steps_near);
}

}  // namespace vc::map_test
