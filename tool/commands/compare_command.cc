#include "tool/commands/compare_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"
#include "tool/options/nbd_options.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"
#include "tool/text/json_text.h"
#include "tool/text/salvaging.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using inspect::Comparison;
using nlohmann::ordered_json;

namespace {

constexpr size_t kPrintAt = 64 << 10;

std::string json_string(const std::string& text) {
  return json_line(text);
}

// Prints ranges as they are found, since there may be too many for memory.
class JsonReport final : public Comparison::Observer {
 public:
  JsonReport(const Console& console, const inspect::ComparedDisk& a, const inspect::ComparedDisk& b)
      : console_(console), a_(a), b_(b) {
    text_ = fmt::format(
        "{{\n    \"a\": {{\"name\": {}, \"virtual-size\": {}}},\n"
        "    \"b\": {{\"name\": {}, \"virtual-size\": {}}},\n    \"differences\": [",
        json_string(a.name()), a.size(), json_string(b.name()), b.size());
  }

  void differ(const Comparison::Range& range) override {
    text_ += fmt::format("{}\n        {{\"start\": {}, \"length\": {}}}", some_ ? "," : "",
                         range.start, range.length);
    some_ = true;
    if (text_.size() >= kPrintAt && printed_) {
      printed_ = console_.print(text_);
      text_.clear();
    }
  }

  Result<void> finish(const Result<Comparison::Summary>& summary) {
    text_ += some_ ? "\n    ]" : "]";
    text_ += lost_text("a", a_) + lost_text("b", b_);
    if (summary) {
      static constexpr const char* kVerdicts[] = {"identical", "size-mismatch",
                                                  "allocation-mismatch", "content-mismatch"};
      text_ += fmt::format(",\n    \"identical\": {},\n    \"verdict\": \"{}\",\n",
                           summary->verdict == Comparison::Verdict::kSame,
                           kVerdicts[static_cast<size_t>(summary->verdict)]);
      if (summary->verdict == Comparison::Verdict::kContent ||
          summary->verdict == Comparison::Verdict::kAllocation)
        text_ += fmt::format("    \"offset\": {},\n", summary->offset);
      text_ += fmt::format(
          "    \"difference-count\": {},\n    \"differing-bytes\": {},\n"
          "    \"compared-bytes\": {},\n    \"seconds\": {:.3f}\n}}\n",
          summary->ranges, summary->differing, summary->compared, summary->elapsed.count());
    } else {
      text_ += fmt::format(",\n    \"error\": {}\n}}\n", json_string(summary.error().message()));
    }
    RETURN_IF_ERROR(std::move(printed_));
    return console_.print(text_);
  }

 private:
  // Returns an empty string without a salvage.
  static std::string lost_text(const char* name, const inspect::ComparedDisk& disk) {
    if (disk.losses() == nullptr) return "";
    ordered_json all = ordered_json::array();
    for (const qcow2::Loss& it : disk.losses()->list(disk.size()))
      all.push_back({{"start", it.at.value()},
                     {"length", it.length},
                     {"reason", qcow2::to_string(it.reason)}});
    return fmt::format(",\n    \"lost-in-{}\": {}", name, json_line(all));
  }

  const Console& console_;
  const inspect::ComparedDisk& a_;
  const inspect::ComparedDisk& b_;
  std::string text_;
  bool some_ = false;
  Result<void> printed_;
};

// Lists the first losses. Returns their total number.
size_t tell_losses(const inspect::ComparedDisk& disk, const Console& console) {
  constexpr size_t kShown = 50;
  if (disk.losses() == nullptr) return 0;
  const auto lost = disk.losses()->list(disk.size());
  std::string text;
  for (size_t i = 0; i < std::min(lost.size(), kShown); ++i)
    text += fmt::format("{}: lost: guest offset {:#x}, {} bytes: {}\n", printable(disk.name()),
                        lost[i].at.value(), lost[i].length, qcow2::describe(lost[i].reason));
  if (lost.size() > kShown)
    text += fmt::format("… and {} more ranges: --json lists all\n", lost.size() - kShown);
  if (!text.empty()) console.tell(text);
  return lost.size();
}

class Silent final : public Comparison::Observer {
 public:
  void differ(const Comparison::Range& /*range*/) override {}
};

}  // namespace

const char* CompareCommand::description() const {
  return "Compare the disks A and B: images, raw files, devices, NBD URIs, or\n[ COMMAND... ] that "
         "serves NBD. Exit code 0: equal, 1: different, 2-4: error.";
}

void CompareCommand::add_options(CLI::App& app) {
  app.add_option("A", a_);
  app.add_option("B", b_);
  add_format_option(app, "-f,--format", a_format_, "format of A, qcow2 or raw; default: detected");
  add_format_option(app, "-F,--second-format", b_format_, "format of B");
  add_switch(app, "-s,--strict", options_.strict, "sizes and allocation must be equal, too");
  add_switch(app, "-U,--force-share", force_share_,
             "compare even if another process writes to them");
  add_switch(app, "--salvage", salvage_, "skip and list ranges that cannot be read");
  add_parsed_option(
      app, "-T", "CACHE", cache_,
      [](const std::string& text) -> Result<std::string> {
        for (const char* const mode : {"none", "writeback", "writethrough", "directsync", "unsafe"})
          if (text == mode) return text;
        return fail(Error::invalid(fmt::format("'{}' is not a cache mode of qemu-img", text)));
      },
      "cache mode of qemu-img, accepted and ignored")
      ->group(kRareOptions);
  add_connections_option(app, nbd_);
  add_retries_option(app, nbd_);
  add_timeout_option(app, nbd_.timeout);
  add_output_option(app, json_, "human (the default), or json with all differences");
  trust_.add_options(app, true);
  trust_.add_untrusted(app);
  trust_.add_key_option(app);
  names_.add_options(app, trust_.keys());
}

void CompareCommand::check() const {
  if (a_.empty() || b_.empty()) throw UsageError("two disks are needed: A and B");
  trust_.check();
  if (salvage_ && options_.strict)
    throw UsageError("--salvage and --strict: the allocation of lost ranges is not known");
}

Result<inspect::ComparedDisk> CompareCommand::open(const std::string& name,
                                                   const std::optional<qcow2::Format>& format,
                                                   const Stop& stop) const {
  copy::SourceOptions how;
  how.name = name;
  how.format = format;
  how.force_share = force_share_;
  how.trust = trust_.trust();
  how.nbd.tuning = nbd_;
  // A salvage does not apply to servers and pipes.
  ASSIGN_OR_RETURN(
      const auto server,
      copy::nbd_target(name, unfold_command(name).value_or(std::vector<std::string>())));
  how.salvage = salvage_ && !server;
  if (auto command = unfold_command(name)) how.command = std::move(*command);
  return inspect::ComparedDisk::open(how, stop);
}

Result<int> CompareCommand::run(const Console& console) {
  auto done = compare(console);
  if (!done && done.error().kind() == Error::Kind::kCancelled)
    return fail(Error::cancelled().with_context("the comparison is incomplete"));
  if (!done && !salvage_)
    return fail(advise_salvage(done.error(), "--salvage compares the readable data"));
  return done;
}

Result<int> CompareCommand::compare(const Console& console) {
  Cancel cancel;
  const StopSignals signals(cancel);
  Stop stop(cancel);
  RETURN_IF_ERROR(names_.resolve(a_, a_format_));
  RETURN_IF_ERROR(names_.resolve(b_, b_format_));
  RETURN_IF_ERROR(trust_.begin_reading(console, {a_, b_}, kNotRead));
  warn_of_images(console, trust_.trust(), {a_, b_});
  ASSIGN_OR_RETURN(inspect::ComparedDisk a, open(a_, a_format_, stop));
  ASSIGN_OR_RETURN(inspect::ComparedDisk b, open(b_, b_format_, stop));
  ProgressDisplay progress(console.manner());
  Silent silent;
  JsonReport report(console, a, b);
  options_.all = json_;
  Comparison comparison(a, b, options_, json_ ? static_cast<Comparison::Observer&>(report) : silent,
                        progress, stop);
  const auto summary = comparison.run();
  progress.finish();
  if (!summary) failure_code_ = comparison.stage() == Comparison::Stage::kMap ? kNoMap : kNotRead;
  const auto say = [&](const std::string& line) -> Result<void> {
    if (json_ || console.manner().quiet) return {};
    return console.print(line + "\n");
  };
  if (json_) {
    RETURN_IF_ERROR(report.finish(summary));
  }
  if (!summary) return fail(summary.error());
  using Verdict = Comparison::Verdict;
  // As in qemu-img, the common part of both disks is compared first.
  const bool beyond =
      summary->verdict == Verdict::kSame ||
      (summary->verdict == Verdict::kContent && summary->offset >= std::min(a.size(), b.size()));
  if (a.size() != b.size() && beyond) RETURN_IF_ERROR(say("Warning: Image size mismatch!"));
  switch (summary->verdict) {
    case Verdict::kSame:
      if (tell_losses(a, console) + tell_losses(b, console) > 0) {
        RETURN_IF_ERROR(say("Images are identical except for lost ranges."));
        return kNotRead;
      }
      RETURN_IF_ERROR(say("Images are identical."));
      return kSuccess;
    case Verdict::kSize:
      RETURN_IF_ERROR(say("Strict mode: Image size mismatch!"));
      break;
    case Verdict::kAllocation:
      RETURN_IF_ERROR(
          say(fmt::format("Strict mode: Offset {} block status mismatch!", summary->offset)));
      break;
    case Verdict::kContent:
      RETURN_IF_ERROR(say(fmt::format("Content mismatch at offset {}!", summary->offset)));
      break;
  }
  return kDifferent;
}

}  // namespace vc::tool
