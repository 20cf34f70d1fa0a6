// virt-compact info FILE
#pragma once

#include <optional>
#include <string>

#include "inspect/image_info.h"
#include "nbd/tuning.h"
#include "qcow2/read/chain.h"
#include "tool/commands/command.h"
#include "tool/options/qemu_names.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class InfoCommand final : public Command {
 public:
  const char* name() const override { return "info"; }
  const char* summary() const override { return "show the properties of an image"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  std::string file_;
  std::optional<qcow2::Format> format_;
  Result<std::vector<inspect::ImageInfo>> read_chain(const Console& console,
                                                     std::optional<Error>& error) const;

  bool backing_chain_ = false;
  QemuNames names_;
  nbd::NbdTuning nbd_{.connections = 1};
  bool force_share_ = false;
  bool quick_ = false;
  bool json_ = false;
  TrustOptions trust_;
};

}  // namespace vc::tool
