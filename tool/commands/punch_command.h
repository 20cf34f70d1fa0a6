// virt-compact punch URI
#pragma once

#include <string>

#include "copy/punch.h"
#include "tool/commands/command.h"

namespace vc::tool {

class PunchCommand final : public Command {
 public:
  const char* name() const override { return "punch"; }
  const char* summary() const override { return "deallocate the zeros of a disk behind NBD"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  std::string server_;
  copy::PunchOptions options_;
  bool json_ = false;
};

}  // namespace vc::tool
