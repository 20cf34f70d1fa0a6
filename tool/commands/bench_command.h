// virt-compact bench DISK [DISK]
#pragma once

#include <optional>
#include <string>

#include "bench/comparison.h"
#include "nbd/tuning.h"
#include "tool/commands/command.h"
#include "tool/options/trust_options.h"

namespace vc::tool {

class BenchCommand final : public Command {
 public:
  const char* name() const override { return "bench"; }
  const char* summary() const override { return "measure the speed of reads"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  Result<int> run(const Console& console) override;

 private:
  struct CacheMode {
    bool direct = false;      // bypass the page cache
    bool flush_each = false;  // each write reaches stable storage before it counts
    bool flush = true;        // flush at the end
  };

  void add_load_options(CLI::App& app);
  void add_file_options(CLI::App& app);
  bench::DeviceName device(const std::string& name) const;
  bench::Load load() const;
  Result<int> run_one(const Console& console);
  Result<int> predict(const Console& console) const;
  Result<int> run_two(const Console& console);

  std::string disk_;
  std::string other_;
  bench::Load load_;
  std::optional<qcow2::Format> format_;
  CacheMode cache_;
  bool force_share_ = false;
  bool no_drain_ = false;
  bool native_ = false;
  bool yes_ = false;
  bool drop_cache_ = false;
  bool no_warm_up_ = false;
  unsigned rounds_ = 0;  // 0: not set
  nbd::NbdTuning nbd_{.connections = 1};
  bool json_ = false;
  TrustOptions trust_;
  bool dry_run_ = false;
};

}  // namespace vc::tool
