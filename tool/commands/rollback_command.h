// virt-compact rollback DISK
#pragma once

#include <string>

#include "tool/commands/command.h"

namespace vc::tool {

class RollbackCommand final : public Command {
 public:
  const char* name() const override { return "rollback"; }
  const char* summary() const override { return "restore the backup of a disk"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  std::string disk_;
  std::string suffix_ = ".bak";
  std::string connection_;
  std::string qmp_socket_;
  bool remove_ = false;
  bool dry_run_ = false;
  bool json_ = false;
};

}  // namespace vc::tool
