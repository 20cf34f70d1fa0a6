#include "tool/options/trust_options.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <thread>

#include "base/printable.h"
#include "copy/source/open_source.h"
#include "tool/options/bracketed_commands.h"
#include "tool/terminal/signals.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using qcow2::NameRule;

namespace {

// Default time limit: a fixed time for any image, plus one second for each kBytesPerSecond bytes of
// allocated blocks. Much more than the slowest machine needs.
constexpr std::chrono::seconds kTime(60);
constexpr uint64_t kBytesPerSecond = 1 << 20;
constexpr uint64_t kLongestTime = 365 * 86400;
// Time from the cancel to the exit of the process.
constexpr std::chrono::seconds kGrace(5);

Result<uint64_t> parse_limit(const std::string& key, const std::string& value) {
  if (key == "size") return parse_size(value);
  if (key == "ratio") return parse_number(value, 1, uint64_t{1} << 32);
  if (key == "snapshots" || key == "bitmaps") return parse_number(value, 0, UINT32_MAX);
  if (key == "time") return parse_number(value, 1, kLongestTime);
  return fail(Error::invalid(
      fmt::format("'{}' is not one of: size, ratio, snapshots, bitmaps, time", key)));
}

struct ParsedLimits {
  qcow2::ImageLimits image;
  std::optional<std::chrono::seconds> time;
};

Result<void> add_limits(const std::string& list, ParsedLimits& limits) {
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    const std::string word = list.substr(at, end - at);
    at = end + 1;
    const size_t equals = word.find('=');
    if (equals == std::string::npos)
      return fail(Error::invalid(fmt::format("'{}' is not KEY=VALUE", word)));
    const std::string key = word.substr(0, equals);
    ASSIGN_OR_RETURN(const uint64_t value,
                     with_context(parse_limit(key, word.substr(equals + 1)), key));
    if (key == "size") limits.image.virtual_size = value;
    if (key == "ratio") limits.image.ratio = value;
    if (key == "snapshots") limits.image.snapshots = value;
    if (key == "bitmaps") limits.image.bitmaps = value;
    if (key == "time") limits.time = std::chrono::seconds(value);
  }
  return {};
}

std::chrono::seconds time_for(const std::vector<std::string>& files) {
  uint64_t bytes = 0;
  for (const std::string& path : files) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) continue;
    // The data on a device is unknown here, and a device is not an upload.
    if (S_ISBLK(status.st_mode)) return std::chrono::seconds(kLongestTime);
    bytes += static_cast<uint64_t>(status.st_blocks) * 512;
  }
  return kTime + std::chrono::seconds(bytes / kBytesPerSecond);
}

// Runs in its own thread, until the process exits.
void watch_the_clock(Console console, std::string what, std::chrono::seconds time,
                     int failure_code) {
  std::this_thread::sleep_for(time);
  console.error(fmt::format(
      "{}: takes longer than {} s, the limit for untrusted images (--limits time=SECONDS)", what,
      time.count()));
  if (cancel_command()) std::this_thread::sleep_for(kGrace);
  ::_exit(failure_code);
}

}  // namespace

void TrustOptions::take_backing(const std::string& word, std::string* base) {
  const auto rule = qcow2::parse_name_rule(word);
  if (!rule && base) {
    *base = word;
    return;
  }
  if (!rule || (*rule == NameRule::kLeaveOut && !reads_only_))
    throw UsageError(fmt::format("--backing: '{}' is not one of: owner, follow{}", word,
                                 reads_only_ ? ", deny, none" : ", deny"));
  names_.backing = *rule;
  backing_given_ = true;
}

void TrustOptions::add_rules(CLI::App& app, bool reads_only, std::string* base) {
  reads_only_ = reads_only;
  app.add_option_function<std::vector<std::string>>(
         "--backing",
         [this, base](const std::vector<std::string>& words) {
           for (const std::string& word : words) take_backing(word, base);
         },
         reads_only ? "backing files: owner (default), follow, deny, none"
                    : "backing files: owner (default), follow or deny")
      ->type_name("RULE")
      ->allow_extra_args(false)
      ->group(kRareOptions);
  add_parsed_option(
      app, "--data-file", "RULE", names_.data_file,
      [](const std::string& word) -> Result<std::optional<NameRule>> {
        const auto rule = qcow2::parse_name_rule(word);
        if (rule && *rule != NameRule::kLeaveOut) return rule;
        return fail(Error::invalid(fmt::format("'{}' is not one of: owner, follow, deny", word)));
      },
      "external data files: owner (default), follow or deny")
      ->group(kRareOptions);
}

void TrustOptions::add_options(CLI::App& app, bool reads_only) {
  add_rules(app, reads_only, nullptr);
}

CLI::Option* TrustOptions::add_options(CLI::App& app, bool reads_only, std::string& base,
                                       const std::string& base_description) {
  CLI::Option* const option =
      app.add_option("-B", base, base_description)->type_name("BASE")->take_last();
  add_rules(app, reads_only, &base);
  return option;
}

void TrustOptions::add_untrusted(CLI::App& app) {
  // A flag, so that a value is accepted only after "=", never as the next word.
  app.add_flag("--untrusted{yes}")
      ->description("treat the image as hostile: confined, with limits")
      ->type_name("[=strict]")
      ->group(kRareOptions)
      ->each([this](const std::string& word) {
        if (word != "yes" && word != "strict")
          throw UsageError(
              fmt::format("--untrusted: '{}' is not a value: the only value is strict", word));
        untrusted_ = true;
        strict_ = word == "strict";
      });
  app.add_option_function<std::vector<std::string>>(
         "--limits",
         [this](const std::vector<std::string>& lists) {
           limits_given_ = true;
           ParsedLimits limits{limits_, time_};
           for (const std::string& list : lists)
             if (const auto added = add_limits(list, limits); !added)
               throw UsageError("--limits: " + added.error().message());
           limits_ = limits.image;
           time_ = limits.time;
         },
         "limits of --untrusted: size=, ratio=, time=, ...")
      ->type_name("LIST")
      ->allow_extra_args(false)
      ->group(kRareOptions);
}

void TrustOptions::check() const {
  if (limits_given_ && !untrusted_) throw UsageError("--limits needs --untrusted");
  if (!untrusted_) return;
  const auto opens = [](NameRule rule) {
    return rule == NameRule::kOwner || rule == NameRule::kFollow;
  };
  if ((backing_given_ && opens(names_.backing)) || (names_.data_file && opens(*names_.data_file)))
    throw UsageError("--untrusted opens no file that the image names");
}

qcow2::Trust TrustOptions::trust() const {
  keys_->stopped = [] { return stop_signal() != 0; };
  qcow2::Trust trust{names_, std::nullopt, keys_};
  if (!untrusted_) return trust;
  if (!backing_given_) trust.names.backing = NameRule::kDeny;
  trust.names.data_file = NameRule::kDeny;
  trust.limits = limits_;
  return trust;
}

Result<void> TrustOptions::begin(const Console& console, const ConfinementPlan& plan,
                                 int failure_code) const {
  if (!untrusted_) return {};
  const std::string what = plan.readable.empty() ? std::string() : plan.readable.front();
  const auto time = time_.value_or(time_for(plan.readable));
  ASSIGN_OR_RETURN(const auto confined, with_context(confine(plan), "--untrusted"));
  if (!confined.missing.empty() && strict_)
    return fail(Error::unsupported(
        fmt::format("--untrusted=strict: this kernel lacks {}", confined.missing)));
  if (confined.missing.empty())
    console.note(
        fmt::format("{}: is read by a confined process (Landlock, seccomp), for {} s at "
                    "most",
                    what, time.count()));
  else
    console.note(
        fmt::format("{}: this kernel lacks {}: only the limits apply", what, confined.missing));
  try {
    std::thread(watch_the_clock, console, what, time, failure_code).detach();
  } catch (const std::system_error& error) {
    return fail(Error::system(error.code().value(), "--untrusted: a thread"));
  }
  return {};
}

Result<void> TrustOptions::begin_reading(const Console& console,
                                         const std::vector<std::string>& names, int failure_code,
                                         const std::vector<std::string>& folders) const {
  if (!untrusted_) return {};
  for (const std::string& name : names) RETURN_IF_ERROR(check_is_file(name));
  return begin(console, {names, {}, folders}, failure_code);
}

void warn_of_images(const Console& console, const qcow2::Trust& trust,
                    const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    // The command reports files that cannot be opened.
    const auto file = FileStorage::open_readonly(name);
    const auto header = file ? qcow2::Header::read(**file, qcow2::Header::Purpose::kTell)
                             : Result<qcow2::Header>(fail(file.error()));
    if (!header) continue;
    if (header->crypt_method == qcow2::CryptMethod::kAes && trust.keys && !trust.keys->empty())
      console.warning(name +
                      ": is encrypted with the old AES method, which is insecure and does "
                      "not detect a wrong passphrase: copy it to a LUKS image");
    if (trust.names.backing == NameRule::kLeaveOut && !header->backing_file.empty())
      console.warning(
          fmt::format("{}: is read without its backing file '{}' (--backing=none): data of that "
                      "file reads as zeros",
                      name, printable(header->backing_file)));
  }
}

Result<void> check_is_file(const std::string& name) {
  const auto command = unfold_command(name).value_or(std::vector<std::string>{});
  ASSIGN_OR_RETURN(const auto target, copy::nbd_target(name, command));
  if (!target && name != "-") return {};
  return fail(
      Error::invalid("--untrusted works only with image files, not with servers and pipes"));
}

}  // namespace vc::tool
