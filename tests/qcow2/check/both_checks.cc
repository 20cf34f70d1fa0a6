#include "tests/qcow2/check/both_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "storage/file_storage.h"
#include "tests/support/process.h"

namespace vc::checks {

namespace {

constexpr std::array kKeys{
    "check-errors",   "image-end-offset",   "corruptions",         "leaks",
    "total-clusters", "allocated-clusters", "fragmented-clusters", "compressed-clusters"};
constexpr size_t kMostFindings = 10000;

class Collector final : public qcow2::CheckObserver {
 public:
  explicit Collector(OurAnswer& answer) : answer_(answer) {}
  void found(const qcow2::Finding& it) override {
    if (answer_.findings.size() < kMostFindings) answer_.findings.push_back(it);
  }

 private:
  OurAnswer& answer_;
};

}  // namespace

QemuAnswer ask_qemu(const std::string& image) {
  const auto done = support::run({"qemu-img", "check", "-f", "qcow2", "--output=json", image});
  QemuAnswer answer;
  answer.exit_code = done.exit_code;
  answer.says = done.describe();
  const auto json = nlohmann::json::parse(done.out, nullptr, false);
  if (json.is_discarded() || !json.is_object()) return answer;
  answer.has_json = true;
  for (const char* key : kKeys) answer.figures[key] = json.value(key, uint64_t{0});
  return answer;
}

bool OurAnswer::has(qcow2::Finding::Kind kind) const {
  return std::any_of(findings.begin(), findings.end(),
                     [&](const qcow2::Finding& it) { return it.kind == kind; });
}

OurAnswer ask_us(const std::string& image, const qcow2::CheckOptions& options) {
  OurAnswer answer;
  Collector collector(answer);
  uint64_t cluster_size = 0;
  const auto sums = [&]() -> Result<qcow2::CheckSums> {
    ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(image));
    ASSIGN_OR_RETURN(auto checker, qcow2::Checker::open(*file, options));
    cluster_size = checker.header().geometry().cluster_size();
    return checker.run(collector);
  }();
  if (!sums) {
    answer.exit_code = 1;
    answer.error = sums.error().message();
    return answer;
  }
  answer.sums = *sums;
  answer.figures = {{"check-errors", sums->check_errors},
                    {"image-end-offset", sums->image_end_offset},
                    {"corruptions", sums->corruptions},
                    {"leaks", sums->leaks},
                    {"total-clusters", sums->total_clusters},
                    {"allocated-clusters", sums->allocated_clusters},
                    {"fragmented-clusters", sums->fragmented_clusters},
                    {"compressed-clusters", sums->compressed_clusters}};
  answer.exit_code = sums->check_errors > 0  ? 1
                     : sums->corruptions > 0 ? 2
                     : sums->leaks > 0       ? 3
                                             : 0;
  for (const qcow2::Finding& it : answer.findings)
    answer.says += fmt::format("{}: {}\n", to_string(it.severity), describe(it, cluster_size));
  return answer;
}

std::string differences(const QemuAnswer& qemu, const OurAnswer& ours) {
  std::string text;
  for (const char* key : kKeys) {
    const uint64_t theirs = qemu.figures.at(key);
    const uint64_t mine = ours.figures.at(key);
    if (theirs != mine) text += fmt::format("{}: qemu-img {}, we {}\n", key, theirs, mine);
  }
  return text;
}

}  // namespace vc::checks
