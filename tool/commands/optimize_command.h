// virt-compact optimize DISK...
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "live/options.h"
#include "optimize/optimize.h"
#include "tool/commands/command.h"
#include "tool/options/in_place_options.h"
#include "tool/options/layout_options.h"
#include "tool/options/snapshot_options.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class OptimizeCommand final : public Command {
 public:
  const char* name() const override { return "optimize"; }
  const char* summary() const override { return "check, trim, copy, verify and swap a disk"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  Result<int> run_in_place(const Console& console);
  void add_output(CLI::App& app);
  void add_sparsify_options(CLI::App& app);
  void add_trim(CLI::App& app);
  void add_live_options(CLI::App& app);
  void check_trimming() const;
  void check_in_place() const;
  void check_live() const;
  void check_qmp() const;
  // Returns true if an option for trimming an offline guest was given.
  bool trims_with_options() const;

  std::vector<std::string> disks_;
  optimize::OptimizeOptions options_;
  LayoutOptions layout_;
  SnapshotOptions snapshots_;
  std::string base_;         // -B
  std::string base_format_;  // -F
  std::string suffix_ = ".bak";
  optimize::GainLimit limit_;  // --minimum-gain
  InPlaceFlags in_place_;
  bool no_backup_ = false;
  bool json_ = false;
  bool human_ = false;  // --output=human was given
  TrustOptions trust_;
  QemuSecrets secrets_;
  bool live_ = false;
  bool resume_ = false;
  bool fstrim_given_ = false;  // --fstrim or --no-fstrim
  std::optional<uint64_t> reserve_;
  live::LiveOptions live_options_;
};

}  // namespace vc::tool
