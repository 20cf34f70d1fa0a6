// virt-compact copy SRC DST
#pragma once

#include "copy/copier.h"
#include "tool/command.h"

namespace tool {

// What --compression asks for.
struct Compression {
  std::optional<qcow2::CompressionType> type;  // nothing: none
  int level = 0;                               // 0: the codec's default
};

qcow2::Result<Compression> parse_compression(const std::string& text);

class CopyCommand final : public Command {
 public:
  const char* name() const override { return "copy"; }
  const char* summary() const override { return "stream a disk into a fresh, compact QCOW2 image"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  qcow2::Result<void> run(const Console& console) override;

 private:
  copy::CopyOptions options_;
  std::optional<Compression> compression_;
  bool compress_ = false;  // -c
  bool json_ = false;
};

}  // namespace tool
