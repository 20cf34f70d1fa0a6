// virt-compact copy SRC DST
#pragma once

#include "copy/copier.h"
#include "qcow2/codec.h"
#include "tool/command.h"
#include "tool/copy_profile.h"
#include "tool/creation_options.h"

namespace tool {

// What --compression asks for.
struct Compression {
  std::optional<qcow2::CompressionType> type;  // nothing: none
  int level = 0;                               // 0: the codec's default
  qcow2::DeflateWindow window = qcow2::DeflateWindow::k32KiB;
};

// none, or TYPE[:LEVEL], for zlib with ",window=4k" or ",window=32k" behind it.
qcow2::Result<Compression> parse_compression(const std::string& text);

class CopyCommand final : public Command {
 public:
  const char* name() const override { return "copy"; }
  const char* summary() const override { return "stream a disk into a fresh, compact image"; }
  const char* description() const override;
  void add_options(CLI::App& app) override;
  void check() const override;
  qcow2::Result<int> run(const Console& console) override;

 private:
  qcow2::Result<void> settle();

  copy::CopyOptions options_;
  CreationOptions creation_;
  const CopyProfile* profile_ = nullptr;
  std::optional<Compression> compression_;
  std::optional<unsigned> cluster_bits_;
  std::string base_;           // -B
  std::string base_format_;    // -F
  std::string unknown_place_;  // a third one
  bool compress_ = false;      // -c
  bool out_of_order_ = false;  // -W
  bool json_ = false;
};

}  // namespace tool
