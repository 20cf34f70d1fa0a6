// virt-compact snapshot [-l | -c NAME | -d NAME | -a NAME | --export NAME] DISK [DST]
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "copy/source/reflink.h"
#include "qcow2/read/chain.h"
#include "qcow2/write/snapshot_editor.h"
#include "tool/commands/command.h"
#include "tool/options/qemu_names.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class SnapshotCommand final : public Command {
 public:
  const char* name() const override { return "snapshot"; }
  const char* summary() const override { return "list, create, delete, apply, export snapshots"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  Result<void> list(const Console& console) const;
  struct Change;
  Result<std::unique_ptr<qcow2::SnapshotEditor>> open_editor(const qcow2::Chain& chain) const;
  Result<void> change(const Console& console) const;
  Result<void> apply_to(qcow2::SnapshotEditor& editor, Change& change,
                        const Console& console) const;
  Result<void> tell(const Change& change, const Console& console) const;
  Result<void> export_disk(const Console& console) const;

  std::string disk_;
  std::string destination_;
  bool list_ = false;
  std::string create_;
  std::string remove_;
  std::string apply_;
  std::string export_;
  std::optional<qcow2::Format> format_;
  QemuNames names_;
  bool force_share_ = false;
  bool force_ = false;
  std::optional<copy::Reflink> reflink_;
  bool json_ = false;
  TrustOptions trust_;
  bool dry_run_ = false;
};

}  // namespace vc::tool
