// What `virt-compact bench` prints.  Each ends with a newline.
#pragma once

#include <string>

#include "bench/comparison.h"
#include "bench/measure.h"

namespace tool {

// Begins with the two lines that qemu-img bench prints.
std::string bench_report(const bench::Measurement& result, const bench::Load& load);
std::string bench_report_json(const bench::Measurement& result, const bench::Load& load);

std::string bench_report(const bench::Comparison& result, const bench::ComparisonOptions& options);
std::string bench_report_json(const bench::Comparison& result,
                              const bench::ComparisonOptions& options);

// "950 ns", "12.1 us", "3.05 ms", "1.20 s".
std::string short_time(double nanoseconds);

}  // namespace tool
