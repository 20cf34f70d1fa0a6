// The output of `virt-compact bench`. Each report ends with a newline.
#pragma once

#include <string>

#include "bench/comparison.h"
#include "bench/measure.h"

namespace vc::tool {

// Begins with the two lines of qemu-img bench.
std::string bench_report(const bench::Measurement& result, const bench::Load& load);
std::string bench_report_json(const bench::Measurement& result, const bench::Load& load);

std::string bench_report(const bench::Comparison& result, const bench::ComparisonOptions& options);
std::string bench_report_json(const bench::Comparison& result,
                              const bench::ComparisonOptions& options);

// Formats a duration: "950 ns", "12.1 us", "3.05 ms", "1.20 s".
std::string short_time(double nanoseconds);

}  // namespace vc::tool
