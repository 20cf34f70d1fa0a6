// virt-compact tune DOMAIN, virt-compact tune --guest DISK…
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "libvirt/tuning.h"
#include "qcow2/read/chain.h"
#include "tool/commands/command.h"
#include "tool/report/tune_report.h"

namespace vc::tool {

class TuneCommand final : public Command {
 public:
  const char* name() const override { return "tune"; }
  const char* summary() const override {
    return "set up a virtual machine to discard unused space";
  }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  Result<int> tune_input(const Console& console) const;
  Result<int> tune_file(const Console& console) const;
  Result<int> tune_libvirt(const Console& console) const;
  Result<int> tune_guest(const Console& console) const;
  Result<int> show(const Console& console, const TuneResult& result) const;

  const std::string& domain() const { return names_.front(); }

  std::vector<std::string> names_;  // one domain, or the disks of a guest
  std::optional<std::string> connect_;
  libvirt::Settings settings_;
  bool guest_ = false;
  std::optional<qcow2::Format> format_;
  bool apply_ = false;
  bool dry_run_ = false;
  bool json_ = false;
};

}  // namespace vc::tool
