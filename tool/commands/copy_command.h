// virt-compact copy SRC DST
#pragma once

#include "copy/copier.h"
#include "tool/commands/command.h"
#include "tool/options/layout_options.h"
#include "tool/options/qemu_names.h"
#include "tool/options/snapshot_options.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class CopyCommand final : public Command {
 public:
  const char* name() const override { return "copy"; }
  const char* summary() const override { return "copy a disk into a fresh, compact image"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  void add_qemu_options(CLI::App& app);
  void check_qemu_options() const;
  void check_skip_free() const;
  void tell_of_qemu_options(const Console& console) const;
  Result<void> resolve_options();
  Result<void> begin(const Console& console);

  copy::CopyOptions options_;
  LayoutOptions layout_;
  SnapshotOptions snapshots_;
  std::string base_;           // -B
  std::string base_format_;    // -F
  std::string unknown_place_;  // a surplus positional argument
  bool out_of_order_ = false;  // -W
  bool json_ = false;
  bool bitmaps_ = false;
  bool skip_broken_ = false;  // --skip-broken-bitmaps
  bool drop_bitmaps_ = false;
  TrustOptions trust_;
  // Options of qemu-img convert, for scripts.
  QemuNames names_;
  bool no_create_ = false;       // -n
  bool offload_ = false;         // -C
  bool target_is_zero_ = false;  // --target-is-zero
  bool all_allocated_ = false;   // -S 0
  std::string cache_;            // -t
  std::string source_cache_;     // -T
};

}  // namespace vc::tool
