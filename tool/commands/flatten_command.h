// virt-compact flatten OVERLAY DST, or --in-place OVERLAY
#pragma once

#include <optional>
#include <string>

#include "copy/copy_options.h"
#include "copy/source/reflink.h"
#include "qcow2/read/chain.h"
#include "tool/commands/command.h"
#include "tool/options/snapshot_options.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class FlattenCommand final : public Command {
 public:
  const char* name() const override { return "flatten"; }
  const char* summary() const override { return "merge an overlay and its backing files"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  Result<void> choose_snapshots(copy::CopyOptions& options, const Console& console) const;
  Result<int> to_destination(const Console& console) const;
  Result<void> in_place(const Console& console) const;

  std::string overlay_;
  std::string destination_;
  std::optional<qcow2::Format> format_;
  bool in_place_ = false;
  bool force_ = false;
  std::optional<copy::Reflink> reflink_;
  bool force_share_ = false;
  bool json_ = false;
  SnapshotOptions snapshots_;
  TrustOptions trust_;
  bool dry_run_ = false;
  bool salvage_ = false;
  bool drop_bitmaps_ = false;
};

}  // namespace vc::tool
