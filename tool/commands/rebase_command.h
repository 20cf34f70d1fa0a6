// virt-compact rebase -u -b NEW FILE
#pragma once

#include <optional>
#include <string>

#include "qcow2/read/chain.h"
#include "tool/commands/command.h"
#include "tool/options/qemu_names.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class RebaseCommand final : public Command {
 public:
  const char* name() const override { return "rebase"; }
  const char* summary() const override { return "change the name of an overlay's backing file"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  Result<qcow2::Format> probe_new(const FileStorage& file) const;
  Result<void> report(const Console& console, const std::string& old_name,
                      const std::string& format) const;

  std::string file_;
  std::optional<qcow2::Format> format_;
  std::optional<std::string> backing_;  // -b; empty: remove the backing file
  std::optional<qcow2::Format> backing_format_;
  std::string cache_;  // -t and -T: accepted for scripts, unused
  QemuNames names_;
  TrustOptions trust_;
  bool unsafe_ = false;
  bool force_ = false;
  bool dry_run_ = false;
  bool json_ = false;
};

}  // namespace vc::tool
