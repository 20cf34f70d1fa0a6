// virt-compact compare A B
#pragma once

#include <optional>
#include <string>

#include "copy/source/open_source.h"
#include "inspect/comparison.h"
#include "tool/commands/command.h"
#include "tool/options/qemu_names.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class CompareCommand final : public Command {
 public:
  // qemu-img's exit codes.
  static constexpr int kDifferent = 1;
  static constexpr int kNotOpened = 2;
  static constexpr int kNoMap = 3;
  static constexpr int kNotRead = 4;

  const char* name() const override { return "compare"; }
  const char* summary() const override { return "check whether two disks hold the same bytes"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;
  int failure_code() const override { return failure_code_; }

 private:
  Result<int> compare(const Console& console);
  Result<inspect::ComparedDisk> open(const std::string& name,
                                     const std::optional<qcow2::Format>& format,
                                     const Stop& stop) const;

  std::string a_;
  std::string b_;
  std::optional<qcow2::Format> a_format_;
  std::optional<qcow2::Format> b_format_;
  inspect::Comparison::Options options_;
  std::string cache_;  // -T
  nbd::NbdTuning nbd_{.request_size = 1 << 20};
  QemuNames names_;
  bool force_share_ = false;
  bool salvage_ = false;
  bool json_ = false;
  int failure_code_ = kNotOpened;
  TrustOptions trust_;
};

}  // namespace vc::tool
