// virt-compact space DISK...
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "copy/source/open_source.h"
#include "qcow2/read/chain.h"
#include "tool/commands/command.h"
#include "tool/options/qemu_names.h"
#include "tool/options/trust_options.h"
#include "tool/report/space_report.h"

namespace vc::tool {

class SpaceCommand final : public Command {
 public:
  const char* name() const override { return "space"; }
  const char* summary() const override { return "show the free space of a guest's filesystems"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  Result<std::unique_ptr<copy::Source>> open(const std::string& disk,
                                             std::optional<qcow2::Format> format,
                                             const Stop& stop) const;

  QemuNames names_;
  TrustOptions trust_;
  nbd::NbdTuning nbd_;
  std::vector<std::string> disks_;
  std::optional<qcow2::Format> format_;
  bool force_share_ = false;
  bool json_ = false;
};

}  // namespace vc::tool
