// virt-compact trim DISK…
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "appliance/trim.h"
#include "tool/commands/command.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class TrimCommand final : public Command {
 public:
  const char* name() const override { return "trim"; }
  const char* summary() const override { return "free the space that a guest does not use"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  void add_sparsify_options(CLI::App& app);
  Result<void> check_use(const std::string& disk, const Console& console) const;

  std::vector<std::string> disks_;
  std::optional<qcow2::Format> format_;
  appliance::TrimOptions options_;
  bool metadata_ = false;
  bool in_place_ = false;
  std::chrono::seconds timeout_ = nbd::NbdTuning().timeout;
  const CLI::Option* timeout_option_ = nullptr;
  bool json_ = false;
  TrustOptions trust_;
};

}  // namespace vc::tool
