// What measure prints.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "inspect/measurement.h"
#include "qcow2/format/header.h"

namespace tool {

// qemu-img's two (or three) lines, and ours behind them.
std::string measure_report(const copy::Measurement& measured);
// qemu-img's keys, and ours.
std::string measure_report_json(const copy::Measurement& measured);

// One field of the table.
struct MeasuredField {
  unsigned cluster_bits = 0;
  std::optional<qcow2::CompressionType> codec;
  copy::Measurement measured;
};

// Of the fields: the smallest file, and the one to take: of those that are hardly larger the one
// with the smallest clusters, since whoever reads a byte decodes a cluster.
const MeasuredField& smallest_field(const std::vector<MeasuredField>& fields);
const MeasuredField& advised_field(const std::vector<MeasuredField>& fields);

std::string measure_table_text(const std::vector<MeasuredField>& fields);
std::string measure_table_json(const std::vector<MeasuredField>& fields);

}  // namespace tool
