// virt-compact measure SRC
#pragma once

#include <optional>
#include <string>

#include "inspect/measurement.h"
#include "tool/commands/command.h"
#include "tool/options/in_place_options.h"
#include "tool/options/layout_options.h"
#include "tool/options/qemu_names.h"
#include "tool/options/snapshot_options.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class MeasureCommand final : public Command {
 public:
  const char* name() const override { return "measure"; }
  const char* summary() const override { return "compute or estimate the size of a copy"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  Result<int> measure_one(const Console& console, const Cancel& cancel);
  Result<int> measure_in_place(const Console& console);
  Result<int> measure_table(const Console& console, const Cancel& cancel);

  inspect::MeasureOptions options_;
  LayoutOptions layout_;
  InPlaceFlags in_place_;
  SnapshotOptions snapshots_;
  bool bitmaps_ = false;
  std::string source_;
  QemuNames names_;
  std::optional<uint64_t> sample_size_;  // bytes
  bool exactly_ = false;
  bool table_ = false;
  bool json_ = false;
  TrustOptions trust_;
};

}  // namespace vc::tool
