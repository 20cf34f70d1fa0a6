// virt-compact copy SRC DST
#pragma once

#include "copy/copier.h"
#include "tool/command.h"
#include "tool/layout_options.h"
#include "tool/trust_options.h"

namespace tool {

class CopyCommand final : public Command {
 public:
  const char* name() const override { return "copy"; }
  const char* summary() const override { return "stream a disk into a fresh, compact image"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  qcow2::Result<int> run(const Console& console) override;

 private:
  qcow2::Result<void> settle();
  qcow2::Result<void> begin(const Console& console);

  copy::CopyOptions options_;
  LayoutOptions layout_;
  std::string base_;           // -B
  std::string base_format_;    // -F
  std::string unknown_place_;  // a third one
  bool out_of_order_ = false;  // -W
  bool json_ = false;
  TrustOptions trust_;
};

}  // namespace tool
