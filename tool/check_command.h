// virt-compact check FILE
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "qcow2/chain.h"
#include "qcow2/check/checker.h"
#include "tool/command.h"

namespace tool {

class CheckCommand final : public Command {
 public:
  const char* name() const override { return "check"; }
  const char* summary() const override { return "find what is wrong with a qcow2 image"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  qcow2::Result<int> run(const Console& console) override;

 private:
  std::string file_;
  std::optional<qcow2::Format> format_;
  qcow2::CheckOptions options_;
  bool force_share_ = false;
  bool json_ = false;
  std::string cache_;  // taken, for scripts that say it
};

}  // namespace tool
