// virt-compact compact DISK
#pragma once

#include <optional>
#include <string>

#include "qcow2/relocate/in_place.h"
#include "tool/commands/command.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class CompactCommand final : public Command {
 public:
  const char* name() const override { return "compact"; }
  const char* summary() const override { return "make an image short in place, without a copy"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  Result<void> tell(const qcow2::InPlaceSummary& summary, const Console& console) const;

  std::string disk_;
  bool shrink_ = false;
  bool zeros_ = false;
  bool defragment_ = false;
  bool compress_ = false;
  std::optional<qcow2::Compression> compression_;
  unsigned threads_ = 0;
  bool dry_run_ = false;
  bool json_ = false;
  TrustOptions trust_;
};

}  // namespace vc::tool
