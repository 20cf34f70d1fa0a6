#include "tool/commands/bench_command.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "copy/source/open_source.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/formats.h"
#include "tool/options/nbd_options.h"
#include "tool/options/qemu_names.h"
#include "tool/report/bench_report.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/signals.h"
#include "tool/text/json_text.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

// Default of qemu-img bench.
constexpr uint64_t kDefaultCount = 75000;
constexpr unsigned kDefaultRounds = 5;

constexpr uint64_t kLargestBlock = 64 << 20;
constexpr unsigned kDeepest = 1024;
// Maximum memory for the buffers of all requests in flight.
constexpr uint64_t kMemory = uint64_t{1} << 30;

Result<std::optional<std::chrono::duration<double>>> parse_seconds(const std::string& text) {
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(seconds) ||
      seconds <= 0 || seconds > 1e6)
    return fail(Error::invalid(fmt::format("'{}' is not a number of seconds", text)));
  return std::optional(std::chrono::duration<double>(seconds));
}

auto number(uint64_t low, uint64_t high) {
  return [low, high](const std::string& text) { return parse_number(text, low, high); };
}

Result<uint64_t> parse_block(const std::string& text) {
  ASSIGN_OR_RETURN(const uint64_t size, parse_size(text));
  if (size == 0 || size > kLargestBlock)
    return fail(Error::invalid(fmt::format("'{}' is not from 1 to 64M", text)));
  return size;
}

}  // namespace

const char* BenchCommand::description() const {
  return "Measure how fast a disk (an image, an NBD URI, [ COMMAND... ]) is read. With\nOTHER, "
         "measure both disks in turn. Nothing is written without -w --yes.";
}

void BenchCommand::add_load_options(CLI::App& app) {
  add_parsed_option(
      app, "-c,--count", "N", load_.count,
      [](const std::string& text) -> Result<std::optional<uint64_t>> {
        ASSIGN_OR_RETURN(const uint64_t count, parse_number(text, 1, UINT64_MAX));
        return std::optional(count);
      },
      "number of requests; default 75000, or --duration");
  add_parsed_option(app, "--duration", "SECONDS", load_.duration, parse_seconds,
                    "send no more requests after this time");
  add_parsed_option(
      app, "-d,--depth", "N", load_.depth,
      [](const std::string& text) -> Result<unsigned> {
        ASSIGN_OR_RETURN(const uint64_t depth, parse_number(text, 1, kDeepest));
        return static_cast<unsigned>(depth);
      },
      "requests in flight; default 64");
  add_parsed_option(app, "-s,--block-size", "SIZE", load_.block, parse_block,
                    "size of a request; default 4k");
  add_parsed_option(app, "-S,--step", "SIZE", load_.step, parse_size,
                    "distance between requests; default: block size")
      ->group(kRareOptions);
  add_parsed_option(app, "-o,--offset", "SIZE", load_.offset, parse_size,
                    "offset of the first request")
      ->group(kRareOptions);
  add_switch(app, "-r,--random", load_.random, "use random offsets instead of consecutive ones");
  add_parsed_option(app, "--seed", "N", load_.seed, number(0, UINT64_MAX),
                    "seed of the random order; default 1")
      ->group(kRareOptions);
  add_switch(app, "-w,--write", load_.write, "write instead of reading: DESTROYS the data");
  add_switch(app, "--yes", yes_, "with -w: confirm that the data may be lost");
  add_switch(app, "--dry-run", dry_run_, "with -w: write nothing; print what would be written")
      ->group(kRareOptions);
  add_parsed_option(
      app, "--pattern", "BYTE", load_.pattern,
      [](const std::string& text) -> Result<uint8_t> {
        ASSIGN_OR_RETURN(const uint64_t byte, parse_size(text));
        if (byte > 255) return fail(Error::invalid(fmt::format("'{}' is not from 0 to 255", text)));
        return static_cast<uint8_t>(byte);
      },
      "byte to write; default 0")
      ->group(kRareOptions);
  add_parsed_option(app, "--flush-interval", "N", load_.flush_interval, number(1, UINT64_MAX),
                    "flush after every N writes")
      ->group(kRareOptions);
  add_switch(app, "--no-drain", no_drain_, "do not wait for writes in flight before a flush")
      ->group(kRareOptions);
}

void BenchCommand::add_file_options(CLI::App& app) {
  add_format_option(app, "-f,--format", format_,
                    "format of a file, qcow2 or raw; default: detected")
      ->group(kRareOptions);
  add_switch(app, "-U,--force-share", force_share_,
             "read even if another process writes to the file")
      ->group(kRareOptions);
  add_parsed_option(
      app, "-t,--cache", "MODE", cache_,
      [](const std::string& text) -> Result<CacheMode> {
        if (text == "none") return CacheMode{true, false, true};
        if (text == "directsync") return CacheMode{true, true, true};
        if (text == "writeback") return CacheMode{};
        if (text == "writethrough") return CacheMode{false, true, true};
        if (text == "unsafe") return CacheMode{false, false, false};
        return fail(Error::invalid(fmt::format(
            "'{}' is not one of: none, directsync, writeback, writethrough, unsafe", text)));
      },
      "none or directsync (no page cache), or writeback");
  add_switch(app, "-n,--native", native_, "as in qemu-img: see the manual")->group(kRareOptions);
  add_switch(app, "--drop-cache", drop_cache_, "drop the files from the page cache first");
  add_connections_option(app, nbd_)->group(kRareOptions);
  add_timeout_option(app, nbd_.timeout)->group(kRareOptions);
}

void BenchCommand::add_options(CLI::App& app) {
  app.add_option("DISK", disk_);
  app.add_option("[OTHER]", other_);
  add_load_options(app);
  add_file_options(app);
  add_parsed_option(
      app, "--rounds", "N", rounds_,
      [](const std::string& text) -> Result<unsigned> {
        ASSIGN_OR_RETURN(const uint64_t count, parse_number(text, 1, 1000));
        return static_cast<unsigned>(count);
      },
      "rounds of DISK and OTHER; default 5");
  add_switch(app, "--no-warm-up", no_warm_up_, "count the first round, too")->group(kRareOptions);
  trust_.add_options(app, true);
  trust_.add_key_option(app);
  add_output_option(app, json_, "human (the default) or json");
}

void BenchCommand::check() const {
  if (disk_.empty()) throw UsageError("DISK is missing");
  if (dry_run_ && !load_.write) throw UsageError("--dry-run needs -w: reading changes nothing");
  if (load_.write && !yes_ && !dry_run_)
    throw UsageError("-w destroys the data on the disk: confirm this with --yes");
  if (yes_ && !load_.write) throw UsageError("--yes needs -w");
  if (!load_.write && (load_.flush_interval != 0 || load_.pattern != 0))
    throw UsageError("--pattern and --flush-interval need -w");
  if (no_drain_ && load_.flush_interval == 0) throw UsageError("--no-drain needs --flush-interval");
  if (other_.empty() && (rounds_ != 0 || no_warm_up_))
    throw UsageError("--rounds and --no-warm-up need two disks");
  if (native_ && !cache_.direct) throw UsageError("-n needs -t none or -t directsync");
  if (load_.block > kMemory / load_.depth)
    throw UsageError(
        fmt::format("{} requests in flight, each of {}, need more than 1 GiB of memory",
                    load_.depth, human_size(load_.block)));
}

bench::DeviceName BenchCommand::device(const std::string& name) const {
  bench::DeviceName device;
  const auto command = unfold_command(name);
  if (command)
    device.command = *command;
  else
    device.name = plain_path(name);
  device.format = format_;
  device.force_share = force_share_;
  device.direct = cache_.direct;
  device.trust = trust_.trust();
  device.nbd = nbd_;
  return device;
}

bench::Load BenchCommand::load() const {
  bench::Load load = load_;
  if (!load.count && !load.duration) load.count = kDefaultCount;
  load.drain = !no_drain_;
  load.flush_each = cache_.flush_each;
  load.flush_at_end = cache_.flush;
  return load;
}

Result<int> BenchCommand::run_one(const Console& console) {
  warn_of_images(console, trust_.trust(), {disk_});
  Cancel cancel;
  const StopSignals signals(cancel);
  ProgressDisplay progress(console.manner());
  progress.begin(Phase::kBench);
  bench::MeasureOptions options;
  options.device = device(disk_);
  options.load = load();
  options.drop_cache = drop_cache_;
  const uint64_t total =
      options.load.duration ? Progress::kUnknown : *options.load.count * options.load.block;
  options.progress = [&](uint64_t bytes) { progress.update(bytes, total); };
  auto result = bench::measure(options, cancel);
  progress.finish();
  if (!result) return fail(std::move(result).error());
  if (json_)
    RETURN_IF_ERROR(console.print(bench_report_json(*result, options.load)));
  else if (!console.manner().quiet)
    RETURN_IF_ERROR(console.print(bench_report(*result, options.load)));
  return kSuccess;
}

Result<int> BenchCommand::run_two(const Console& console) {
  warn_of_images(console, trust_.trust(), {disk_, other_});
  Cancel cancel;
  const StopSignals signals(cancel);
  ProgressDisplay progress(console.manner());
  progress.begin(Phase::kBench);
  bench::ComparisonOptions options;
  options.a = device(disk_);
  options.b = device(other_);
  options.load = load();
  options.rounds = rounds_ == 0 ? kDefaultRounds : rounds_;
  options.drop_cache = drop_cache_;
  options.warm_up = !no_warm_up_;
  const uint64_t total = options.load.duration
                             ? Progress::kUnknown
                             : *options.load.count * options.load.block * options.runs();
  options.progress = [&](uint64_t bytes) { progress.update(bytes, total); };
  auto result = bench::compare(options, cancel);
  progress.finish();
  if (!result) return fail(std::move(result).error());
  if (json_)
    RETURN_IF_ERROR(console.print(bench_report_json(*result, options)));
  else if (!console.manner().quiet)
    RETURN_IF_ERROR(console.print(bench_report(*result, options)));
  return kSuccess;
}

// Prints one line per disk that would be written. Writes nothing.
Result<int> BenchCommand::predict(const Console& console) const {
  const bench::Load load = this->load();
  Cancel cancel;
  const StopSignals signals(cancel);
  const Stop stop(cancel);
  nlohmann::ordered_json json;
  json["dry-run"] = true;
  std::string text;
  for (const std::string& name : {disk_, other_}) {
    if (name.empty()) continue;
    copy::SourceOptions options;
    options.name = plain_path(name);
    options.command = unfold_command(name).value_or(std::vector<std::string>{});
    options.format = format_;
    options.trust = trust_.trust();
    options.nbd.tuning = nbd_;
    options.nbd.tuning.connections = 1;
    ASSIGN_OR_RETURN(const auto source, copy::open_source(options, stop));
    json["disks"].push_back({{"name", name}, {"virtual-size", source->size()}});
    text += fmt::format("{}: {} disk, would be overwritten by requests of {}, {}\n",
                        printable(name), human_size(source->size()), human_size(load.block),
                        load.count ? fmt::format("{} of them", *load.count)
                                   : fmt::format("for {:.0f} s", load.duration->count()));
  }
  json["block-size"] = load.block;
  if (load.count) json["requests"] = *load.count;
  if (load.duration) json["seconds"] = load.duration->count();
  if (json_)
    RETURN_IF_ERROR(console.print(json_text(json)));
  else if (!console.manner().quiet)
    RETURN_IF_ERROR(console.print(text + "Nothing was written.\n"));
  return kSuccess;
}

Result<int> BenchCommand::run(const Console& console) {
  if (dry_run_) return predict(console);
  return other_.empty() ? run_one(console) : run_two(console);
}

}  // namespace vc::tool
