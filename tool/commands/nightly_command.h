// virt-compact nightly
#pragma once

#include <string>

#include "tool/commands/command.h"
#include "tool/nightly/nightly_run.h"

namespace vc::tool {

class NightlyCommand final : public Command {
 public:
  const char* name() const override { return "nightly"; }
  const char* summary() const override { return "optimize the disks of a policy, as a service"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  std::string policy_;
  bool check_only_ = false;
  NightlyOptions options_;
};

}  // namespace vc::tool
