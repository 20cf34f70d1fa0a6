#include "optimize/gain.h"

#include "qcow2/check/survey.h"

namespace vc::optimize {

using qcow2::Format;

namespace {

// Data to read for the estimate, bytes.
constexpr uint64_t kBudget = 256 << 20;
// An image is in order if fewer steps than this lead far away, in percent.
constexpr double kScattered = 1;

double percent_of(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

Result<double> scattered(const qcow2::Chain& disk) {
  if (!disk.image()) return 0.0;
  const qcow2::Header& header = disk.image()->header();
  ASSIGN_OR_RETURN(const auto survey,
                   qcow2::survey(*disk.storage(), header, disk.image()->snapshots(), {}));
  const auto& order = survey.order;
  if (order.runs < 2) return 0.0;
  return order.percent(header.geometry()) * static_cast<double>(order.seeks) /
         static_cast<double>(order.runs - 1);
}

}  // namespace

double Gain::percent() const {
  return percent_of(saved(), before);
}

bool Gain::is_worth(const GainLimit& limit) const {
  if (!limit.said && scattered >= kScattered) return true;
  // Holes take no space on disk, but count when the file is copied elsewhere: a gain in length is a
  // gain.
  if (!limit.said && length > expected && percent_of(length - expected, length) >= limit.percent)
    return true;
  return (!limit.bytes || saved() >= *limit.bytes) && percent() >= limit.percent;
}

Result<inspect::Measurement> measure_result(const copy::CopyOptions& how, uint64_t budget,
                                            Progress& progress, const Cancel& cancel) {
  inspect::MeasureOptions options;
  options.copy = how;
  options.budget = budget;
  // A raw result stores only data that is not zeros, as an uncompressed image does.
  if (how.format == Format::kRaw) {
    options.copy.format = Format::kQcow2;
    options.copy.image = {};
    options.copy.bitmaps = copy::BitmapChoice::kNone;
  }
  return inspect::measure(options, progress, cancel);
}

Result<Gain> predict_gain(const copy::CopyOptions& how, const qcow2::Chain& disk, uint64_t before,
                          uint64_t length, Progress& progress, const Cancel& cancel) {
  Gain gain;
  gain.before = before;
  gain.length = disk.image() && how.format != Format::kRaw ? length : 0;
  ASSIGN_OR_RETURN(const auto measured, measure_result(how, kBudget, progress, cancel));
  gain.expected = measured.file_size;
  gain.low = measured.low;
  gain.high = measured.high;
  ASSIGN_OR_RETURN(gain.scattered, scattered(disk));
  return gain;
}

}  // namespace vc::optimize
