#include "qcow2/check/survey.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "qcow2/read/chain.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/refcounts/references.h"
#include "tests/catch_text.h"
#include "tests/interop/image_editor.h"
#include "tests/interop/image_maker.h"
#include "tests/interop/qemu.h"
#include "tests/qcow2/check/run_model.h"
#include "tests/support/random.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using qcow2::Chain;
using qcow2::HostUse;
using qcow2::Survey;

namespace {

Chain open_chain(const std::string& path) {
  qcow2::OpenOptions options;
  options.format = qcow2::Format::kQcow2;
  auto chain = Chain::open(path, options);
  if (!chain) FAIL(chain.error().message());
  return std::move(*chain);
}

Survey survey_of(const std::string& path, const qcow2::SurveyOptions& options = {}) {
  auto storage = FileStorage::open_readonly(path);
  REQUIRE(storage);
  const auto header = qcow2::Header::read(**storage);
  if (!header) FAIL(header.error().message());
  const auto snapshots = qcow2::read_snapshot_table(**storage, *header);
  auto result = qcow2::survey(**storage, *header,
                              snapshots.value_or(std::vector<qcow2::Snapshot>{}), options);
  if (!result) FAIL(result.error().message());
  return *result;
}

// Returns the parts of the disk that the top image holds, by the engine's map.
std::vector<map_test::Piece> pieces_of(const Chain& chain) {
  std::vector<map_test::Piece> pieces;
  const qcow2::Layer& top = *chain.disk().layers().front();
  for (uint64_t at = 0; at < top.size();) {
    const auto extent = top.map(GuestOffset(at), top.size() - at);
    if (!extent) FAIL(extent.error().message());
    if (extent->kind == qcow2::ExtentKind::kData)
      pieces.push_back({extent->host.value(), extent->length, false});
    if (extent->kind == qcow2::ExtentKind::kCompressed)
      pieces.push_back({extent->host.value(), extent->compressed_length, true});
    at += extent->length;
  }
  return pieces;
}

uint64_t sum(const Survey& survey) {
  return survey.live() + survey.of(HostUse::kLeaked) + survey.of(HostUse::kFree);
}

// Returns true if a plain cluster also holds compressed data. QEMU 7.2 keeps packing into a cluster
// after all of its compressed data was freed and the cluster was reused. Its check finds no error
// then.
bool packed_over(const std::vector<map_test::Piece>& pieces, uint64_t cluster_size) {
  std::set<uint64_t> plain;
  for (const auto& it : pieces) {
    if (it.compressed) continue;
    for (uint64_t n = it.at / cluster_size; n * cluster_size < it.end(); ++n) plain.insert(n);
  }
  return std::any_of(pieces.begin(), pieces.end(), [&](const auto& it) {
    const auto found = plain.lower_bound(it.at / cluster_size);
    return it.compressed && found != plain.end() && *found * cluster_size < it.end();
  });
}

}  // namespace

TEST_CASE("a survey agrees with the tables of images of every kind", "[survey]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(25); ++i) {
    CAPTURE(seed + i);
    support::Random random(seed + i);
    const support::TempDirectory folder;
    const auto image = interop::make_image(random, folder.path());
    CAPTURE(image.recipe);
    const Chain chain = open_chain(image.path);

    std::set<uint64_t> seen;
    uint64_t twice = 0;
    qcow2::SurveyOptions options;
    options.host = [&](HostCluster first, uint64_t count, HostUse use) {
      if (use == HostUse::kFree) return;
      for (uint64_t n = 0; n < count; ++n) twice += !seen.insert(first.value() + n).second;
    };
    const Survey survey = survey_of(image.path, options);
    CHECK(twice == 0);
    CHECK(seen.size() == survey.allocated());
    const auto file_size = chain.storage()->size();
    REQUIRE(file_size);
    CHECK(sum(survey) == chain.image()->geometry().clusters_for(*file_size));

    // If the last cluster is incomplete, fewer bytes are read.
    auto pieces = pieces_of(chain);
    const uint64_t size = chain.disk().size();
    const uint64_t unit = chain.image()->geometry().subcluster_size();
    if (!pieces.empty() && !pieces.back().compressed && size % unit != 0 &&
        pieces.back().length % unit != 0)
      pieces.back().length += unit - size % unit;
    map_test::check_equal(survey.order, map_test::model(pieces, image.cluster_size));

    const auto references = qcow2::References::find(*chain.image());
    if (!references) continue;  // a failed command has left wrong refcounts
    std::set<uint64_t> live;
    const auto visited = references->visit([&](HostCluster first, uint64_t count, uint64_t) {
      for (uint64_t n = 0; n < count; ++n) live.insert(first.value() + n);
    });
    if (!visited) continue;
    if (!image.sound || packed_over(pieces, image.cluster_size)) continue;
    CAPTURE(survey.first_damage);
    CHECK(survey.damages == 0);
    CHECK(survey.live() == live.size());
    CHECK(survey.of(HostUse::kLeaked) == 0);
  }
}

TEST_CASE("a survey finds leaked clusters", "[survey]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1G"});
  support::run_ok({"qemu-io", "-c", "write 0 1M", "-c", "write -z 2M 1M", path});
  const Survey before = survey_of(path);
  CHECK(before.of(HostUse::kData) == 16);
  CHECK(before.of(HostUse::kLeaked) == 0);
  CHECK(before.zero_bytes == 1 << 20);
  CHECK(before.order.runs == 1);
  interop::ImageEditor editor(path);
  for (uint64_t i = 0; i < 5; ++i) editor.put64(editor.l2_entry_at(i * 3 * 65536), 0);
  editor.save();
  const Survey after = survey_of(path);
  CHECK(after.of(HostUse::kData) == 11);
  CHECK(after.of(HostUse::kLeaked) == 5);
  CHECK(after.damages == 0);
  CHECK(after.order.runs == 5);
  const auto check = support::run({"qemu-img", "check", "--output=json", path});
  CHECK(json::parse(check.out)["leaks"] == 5);
}

TEST_CASE("a survey continues after damage, and reports it", "[survey]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "2G"});
  support::run_ok(
      {"qemu-io", "-c", "write 0 1M", "-c", "write 512M 1M", "-c", "write 1G 1M", path});
  interop::ImageEditor editor(path);

  SECTION("an L2 table past the end of the file") {
    editor.put64(editor.l1_entry_at(512 << 20), uint64_t{1} << 50 | uint64_t{1} << 63);
    editor.save();
    const Survey survey = survey_of(path);
    CHECK(survey.damages == 1);
    CHECK(survey.first_damage == "L1 entry 1: no L2 table can be at 0x4000000000000");
    CHECK(survey.of(HostUse::kData) == 32);
    CHECK(survey.of(HostUse::kLeaked) == 17);
  }
  SECTION("an L2 table that is the L1 table") {
    editor.put64(editor.l1_entry_at(512 << 20), editor.get64(interop::ImageEditor::kL1Offset));
    editor.save();
    CHECK_THAT(survey_of(path).first_damage, Catch::StartsWith("L1 entry 1: 0x"));
  }
  SECTION("two entries for one host cluster") {
    editor.put64(editor.l2_entry_at(65536), editor.get64(editor.l2_entry_at(0)));
    editor.save();
    const Survey survey = survey_of(path);
    CHECK(survey.damages == 1);
    CHECK_THAT(survey.first_damage, Catch::StartsWith("guest offset 0x10000: the cluster at 0x"));
  }
  SECTION("a refcount table without blocks") {
    editor.put64(editor.get64(interop::ImageEditor::kRefcountTableOffset), 0x7ffffe00);
    editor.save();
    const Survey survey = survey_of(path);
    CHECK(survey.damages == 1);
    CHECK(survey.of(HostUse::kData) == 48);
  }
  SECTION("a truncated file") {
    editor.bytes().resize(editor.get64(editor.l2_entry_at(1 << 30)) & 0xfffffffffffe00);
    editor.save();
    CHECK(survey_of(path).damages == 16);
  }
}

TEST_CASE("a survey of a huge sparse file needs little memory and time", "[survey]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "16T"});
  support::run_ok({"qemu-io", "-c", "write 0 64k", "-c", "write 15T 64k", path});
  support::run_ok({"truncate", "-s", "15T", path});
  const Survey survey = survey_of(path);
  CHECK(survey.damages == 0);
  CHECK(survey.of(HostUse::kData) == 2);
  CHECK(sum(survey) == uint64_t{15} << 24);
}
