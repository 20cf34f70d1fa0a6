#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "tool/nightly/name_pattern.h"
#include "tool/nightly/policy.h"
#include "tool/nightly/toml_value.h"
#include "tool/options/formats.h"
#include "tool/options/layout_options.h"
#include "tool/options/optimize_words.h"
#include "tool/options/trimming_options.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

using Kind = TomlValue::Kind;

constexpr uint64_t kMostDays = 3650;
constexpr uint64_t kMostThreads = 256;

Failure is_no(const TomlValue& value, const std::string& wanted) {
  return fail(Error::invalid(fmt::format("is {}: write {}", describe(value.kind), wanted)));
}

Result<void> take(const TomlValue& value, bool& target) {
  if (value.kind != Kind::kBoolean) return is_no(value, "true or false");
  target = value.boolean;
  return {};
}

Result<void> take(const TomlValue& value, std::string& target) {
  if (value.kind != Kind::kString) return is_no(value, "a string (\"...\")");
  if (value.text.empty()) return fail(Error::invalid("is empty: write a value, or omit the key"));
  if (value.text.find('\0') != std::string::npos)
    return fail(Error::invalid("has a null byte: remove it"));
  target = value.text;
  return {};
}

Result<void> take_number(const TomlValue& value, uint64_t most, uint64_t& target) {
  if (value.kind != Kind::kInteger) return is_no(value, "a whole number");
  if (value.integer < 0 || static_cast<uint64_t>(value.integer) > most)
    return fail(Error::invalid(
        fmt::format("is {}: write a whole number from 0 to {}", value.integer, most)));
  target = static_cast<uint64_t>(value.integer);
  return {};
}

// A string counts as an array of one.
Result<void> take(const TomlValue& value, std::vector<std::string>& target) {
  target.clear();
  if (value.kind == Kind::kString) return take(value, target.emplace_back());
  if (value.kind != Kind::kArray) return is_no(value, "a string or an array of strings");
  for (const TomlValue& it : value.elements) RETURN_IF_ERROR(take(it, target.emplace_back()));
  return {};
}

// Takes a string that `parse` understands.
template <typename T, typename Parse>
Result<void> take_parsed(const TomlValue& value, T& target, Parse parse) {
  std::string text;
  RETURN_IF_ERROR(take(value, text));
  ASSIGN_OR_RETURN(target, parse(text));
  return {};
}

// A percentage, a size, or both.
Result<void> take_gain(const TomlValue& value, optimize::GainLimit& target) {
  std::vector<std::string> texts;
  RETURN_IF_ERROR(take(value, texts));
  optimize::GainLimit limit;
  limit.said = true;
  limit.percent = 0;
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(const auto one, parse_gain(text));
    if ((one.bytes && limit.bytes) || (one.percent > 0 && limit.percent > 0))
      return fail(Error::invalid("has two limits of the same kind: write one size and one share"));
    if (one.bytes) limit.bytes = one.bytes;
    if (one.percent > 0) limit.percent = one.percent;
  }
  target = limit;
  return {};
}

Result<void> take_drop(const TomlValue& value, appliance::TrimOptions::Drop& target) {
  std::vector<std::string> names;
  RETURN_IF_ERROR(take(value, names));
  ASSIGN_OR_RETURN(target, parse_drop(fmt::format("{}", fmt::join(names, ","))));
  return {};
}

Result<void> take_rate(const TomlValue& value, uint64_t& target) {
  RETURN_IF_ERROR(take_parsed(value, target, parse_size));
  if (target == 0) return fail(Error::invalid("'0' is not a valid rate"));
  return {};
}

Result<void> take_threads(const TomlValue& value, unsigned& target) {
  uint64_t count = 0;
  RETURN_IF_ERROR(take_number(value, kMostThreads, count));
  target = static_cast<unsigned>(count);
  return {};
}

Result<void> take_backup_days(const TomlValue& value, std::optional<uint64_t>& target) {
  return take_number(value, kMostDays, target.emplace());
}

Result<void> take_end(const TomlValue& value, bool& stops) {
  std::string word;
  RETURN_IF_ERROR(take(value, word));
  if (word != "finish" && word != "stop")
    return fail(Error::invalid(fmt::format("'{}' is not one of: finish, stop", word)));
  stops = word == "stop";
  return {};
}

Result<void> take_folder(const TomlValue& value, std::string& target) {
  RETURN_IF_ERROR(take(value, target));
  if (target.front() == '/') return {};
  return fail(Error::invalid(fmt::format("'{}' does not begin with a slash", target)));
}

Result<void> take_paths(const TomlValue& value, std::vector<std::string>& target) {
  RETURN_IF_ERROR(take(value, target));
  for (const std::string& path : target) {
    if (path.front() != '/')
      return fail(Error::invalid(fmt::format("'{}' does not begin with a slash", path)));
    if (path.find_first_of("*?") < path.rfind('/'))
      return fail(Error::invalid(
          fmt::format("'{}': * and ? stand for other characters only after the last slash", path)));
    if (path.back() == '/')
      return fail(Error::invalid(
          fmt::format("'{}' is a folder: use '{}*.qcow2' for its disks", path, path)));
  }
  return {};
}

Result<void> take_format(const TomlValue& value, qcow2::Format& target) {
  return take_parsed(value, target, [](const std::string& text) -> Result<qcow2::Format> {
    if (text == "qcow2") return qcow2::Format::kQcow2;
    if (text == "raw") return qcow2::Format::kRaw;
    return fail(Error::invalid(fmt::format("'{}' is not one of: qcow2, raw", text)));
  });
}

struct Key {
  const char* name;
  std::function<Result<void>(const TomlValue&)> take;
};

std::vector<Key> keys_of(NightlySettings& it) {
  return {
      {"every_days",
       [&](const TomlValue& value) { return take_number(value, kMostDays, it.every_days); }},
      {"minimum_gain", [&](const TomlValue& value) { return take_gain(value, it.gain); }},
      {"compression",
       [&](const TomlValue& value) {
         return take_parsed(value, it.compression, parse_compression);
       }},
      {"rate_limit", [&](const TomlValue& value) { return take_rate(value, it.rate_limit); }},
      {"threads", [&](const TomlValue& value) { return take_threads(value, it.threads); }},
      {"trim", [&](const TomlValue& value) { return take_parsed(value, it.trim, parse_trimming); }},
      {"drop", [&](const TomlValue& value) { return take_drop(value, it.drop); }},
      {"keep_going", [&](const TomlValue& value) { return take(value, it.keep_going); }},
      {"live", [&](const TomlValue& value) { return take(value, it.live); }},
      {"fstrim", [&](const TomlValue& value) { return take(value, it.fstrim); }},
      {"backup", [&](const TomlValue& value) { return take(value, it.backup); }},
      {"backup_days",
       [&](const TomlValue& value) { return take_backup_days(value, it.backup_days); }},
  };
}

class Reader {
 public:
  explicit Reader(const std::string& name) : name_(name) {}

  Result<Policy> read(const TomlValue& table) {
    Policy policy;
    NightlySettings defaults;
    std::vector<Key> keys = keys_of(defaults);
    keys.push_back({"connect", [&](const TomlValue& it) { return take(it, policy.connection); }});
    keys.push_back({"state", [&](const TomlValue& it) { return take_folder(it, policy.state); }});
    keys.push_back({"window", [&](const TomlValue& it) {
                      return take_parsed(it, policy.window, TimeWindow::parse);
                    }});
    keys.push_back(
        {"window_end", [&](const TomlValue& it) { return take_end(it, policy.stop_at_end); }});
    // The rules take over what the top says, which is read before them.
    keys.push_back({"domain", [](const TomlValue&) { return Result<void>(); }});
    keys.push_back({"disk", [](const TomlValue&) { return Result<void>(); }});
    RETURN_IF_ERROR(take_all(table, keys, "the top of a policy"));
    RETURN_IF_ERROR(check(defaults, table.line));
    for (const TomlValue& it : table.elements) {
      if (it.key == "domain") RETURN_IF_ERROR(read_rules(it, defaults, policy.domains));
      if (it.key == "disk") RETURN_IF_ERROR(read_rules(it, defaults, policy.disks));
    }
    if (policy.domains.empty() && policy.disks.empty())
      return fail(Error::invalid(name_ + ": names no disks: add [[domain]] with name = \"*\""));
    return policy;
  }

 private:
  Failure fault(size_t line, const std::string& message) const {
    return fail(Error::invalid(fmt::format("{}:{}: {}", name_, line, message)));
  }

  Result<void> take_all(const TomlValue& table, const std::vector<Key>& keys,
                        const char* what) const {
    for (const TomlValue& value : table.elements) {
      const auto key = std::find_if(keys.begin(), keys.end(),
                                    [&](const Key& it) { return value.key == it.name; });
      if (key == keys.end()) return fault(value.line, unknown(value.key, keys, what));
      if (const auto taken = key->take(value); !taken)
        return fault(value.line, value.key + ": " + taken.error().message());
    }
    return {};
  }

  static std::string unknown(const std::string& key, const std::vector<Key>& keys,
                             const char* what) {
    std::string names;
    for (const Key& it : keys) names += (names.empty() ? "" : ", ") + std::string(it.name);
    return fmt::format("'{}' is no key of {}: the keys are {}", key, what, names);
  }

  template <typename Rule>
  Result<void> read_rules(const TomlValue& value, const NightlySettings& defaults,
                          std::vector<Rule>& rules) const {
    if (value.kind != Kind::kArray)
      return fault(value.line, fmt::format("{}: is {}: write [[{}]]", value.key,
                                           describe(value.kind), value.key));
    for (const TomlValue& it : value.elements) {
      if (it.kind != Kind::kTable)
        return fault(it.line, fmt::format("{}: is {}: write [[{}]]", value.key, describe(it.kind),
                                          value.key));
      Rule rule;
      rule.settings = defaults;
      RETURN_IF_ERROR(read_rule(it, rule));
      RETURN_IF_ERROR(check(rule.settings, it.line));
      rules.push_back(std::move(rule));
    }
    return {};
  }

  Result<void> read_rule(const TomlValue& table, DomainRule& rule) const {
    std::vector<Key> keys = keys_of(rule.settings);
    keys.push_back({"name", [&](const TomlValue& it) { return take(it, rule.names); }});
    keys.push_back({"except", [&](const TomlValue& it) { return take(it, rule.except); }});
    keys.push_back({"target", [&](const TomlValue& it) { return take(it, rule.targets); }});
    RETURN_IF_ERROR(take_all(table, keys, "[[domain]]"));
    if (rule.names.empty())
      return fault(table.line, "[[domain]] has no name: add name = \"*\", or other patterns");
    return {};
  }

  Result<void> read_rule(const TomlValue& table, DiskRule& rule) const {
    std::vector<Key> keys = keys_of(rule.settings);
    keys.push_back({"path", [&](const TomlValue& it) { return take_paths(it, rule.paths); }});
    keys.push_back({"format", [&](const TomlValue& it) { return take_format(it, rule.format); }});
    RETURN_IF_ERROR(take_all(table, keys, "[[disk]]"));
    if (rule.paths.empty())
      return fault(table.line, "[[disk]] has no path: add path = \"/...\", or an array of paths");
    return {};
  }

  Result<void> check(const NightlySettings& it, size_t line) const {
    using optimize::Trimming;
    if (it.trim == Trimming::kNone && it.drop.any())
      return fault(line, "drop has no effect with trim = \"none\": omit one of them");
    if (it.trim == Trimming::kMetadata && it.drop.shadows)
      return fault(line,
                   "drop = \"shadows\" needs the appliance, which trim = \"metadata\" does not "
                   "boot: omit one of them");
    if (!it.backup && it.backup_days)
      return fault(line, "backup = false keeps no old disk: omit backup_days");
    return {};
  }

  const std::string& name_;
};

}  // namespace

std::string NightlySettings::fingerprint() const {
  std::string text =
      fmt::format("gain {} {}; trim {} {}{}{}{}{}", gain.bytes ? std::to_string(*gain.bytes) : "-",
                  gain.percent, to_string(trim), drop.pagefile ? "p" : "", drop.swapfile ? "s" : "",
                  drop.hiberfile ? "h" : "", drop.shadows ? "v" : "", drop.swap ? "w" : "");
  if (compression)
    text += fmt::format("; compression {} {} {}",
                        compression->type ? to_string(*compression->type) : "none",
                        compression->level, static_cast<int>(compression->window));
  return text;
}

bool DomainRule::takes(const std::string& name) const {
  const auto matches = [&](const std::string& it) { return matches_pattern(it, name); };
  return std::any_of(names.begin(), names.end(), matches) &&
         std::none_of(except.begin(), except.end(), matches);
}

Result<Policy> read_policy(std::string_view text, const std::string& name) {
  ASSIGN_OR_RETURN(const TomlValue table, parse_toml(text, name));
  return Reader(name).read(table);
}

}  // namespace vc::tool
