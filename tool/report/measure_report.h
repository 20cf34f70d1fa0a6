// The output of `measure`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "inspect/measurement.h"
#include "qcow2/format/header.h"

namespace vc::tool {

// Returns text: qemu-img's two (or three) lines, then our own.
std::string measure_report(const inspect::Measurement& measured);
// Returns JSON with qemu-img's keys and our own.
std::string measure_report_json(const inspect::Measurement& measured);

// A field of the table.
struct MeasuredField {
  unsigned cluster_bits = 0;
  std::optional<qcow2::CompressionType> codec;
  inspect::Measurement measured;
};

// Return the field with the smallest file, and the recommended field: among the fields with about
// the smallest file, the one with the smallest clusters, since reading a byte decodes a whole
// cluster.
const MeasuredField& smallest_field(const std::vector<MeasuredField>& fields);
const MeasuredField& advised_field(const std::vector<MeasuredField>& fields);

std::string measure_table_text(const std::vector<MeasuredField>& fields);
std::string measure_table_json(const std::vector<MeasuredField>& fields);

}  // namespace vc::tool
