// virt-compact check FILE
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "qcow2/check/checker.h"
#include "qcow2/read/chain.h"
#include "qcow2/repair/repair.h"
#include "tool/commands/command.h"
#include "tool/options/qemu_names.h"
#include "tool/options/trust_options.h"
#include "tool/report/check_log.h"
#include "tool/report/check_report.h"

namespace vc::tool {

class CheckCommand final : public Command {
 public:
  const char* name() const override { return "check"; }
  const char* summary() const override { return "find and repair errors in a qcow2 image"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  // Opens the file read-only, or for writing if something will be written.
  Result<std::shared_ptr<FileStorage>> open() const;
  Result<void> check_trust(const qcow2::Header& header) const;
  Result<void> repair(const std::shared_ptr<FileStorage>& file, CheckReport& report,
                      CheckLog& log) const;
  Result<int> take_back(const Console& console) const;

  std::string file_;
  std::optional<qcow2::Format> format_;
  qcow2::CheckOptions options_;
  QemuNames names_;
  bool force_share_ = false;
  bool json_ = false;
  bool dry_run_ = false;
  std::optional<qcow2::RepairOptions::What> repair_;
  std::string undo_;  // --undo
  bool lossy_ = false;
  std::string apply_undo_;  // --apply-undo
  std::string cache_;       // accepted for scripts, unused
  TrustOptions trust_;
};

}  // namespace vc::tool
