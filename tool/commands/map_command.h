// virt-compact map FILE
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "copy/source/open_source.h"
#include "inspect/disk_map.h"
#include "qcow2/read/chain.h"
#include "tool/commands/command.h"
#include "tool/options/qemu_names.h"
#include "tool/options/trust_options.h"
#include "tool/report/map_picture.h"
#include "tool/terminal/progress_display.h"

namespace vc::tool {

class MapCommand final : public Command {
 public:
  const char* name() const override { return "map"; }
  const char* summary() const override { return "show where the data of a disk is stored"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  Result<void> begin(const Console& console) const;
  Result<void> write_map(const Console& console, copy::Source& source);
  Result<void> check_picture(const copy::Source& source) const;
  Result<void> write_picture(const Console& console, copy::Source& source);

  Result<void> went_on(ProgressDisplay& progress, uint64_t done, uint64_t total) const;

  std::string file_;
  std::optional<qcow2::Format> format_;
  std::string svg_;
  bool force_ = false;
  uint64_t start_ = 0;              // bytes
  std::optional<uint64_t> length_;  // bytes
  QemuNames names_;
  bool force_share_ = false;
  nbd::NbdTuning nbd_{.connections = 1};
  bool json_ = false;
  const CLI::App* options_of_ = nullptr;
  const Stop* stop_ = nullptr;  // set while the command runs
  TrustOptions trust_;
};

}  // namespace vc::tool
