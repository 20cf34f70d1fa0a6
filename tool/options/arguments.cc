#include "tool/options/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace vc::tool {

namespace {

constexpr size_t kDescriptionColumn = 27;

Result<ColorMode> parse_color(const std::string& text) {
  if (text == "auto") return ColorMode::kAuto;
  if (text == "always") return ColorMode::kAlways;
  if (text == "never") return ColorMode::kNever;
  return fail(Error::invalid(fmt::format("'{}' is not one of: auto, always, never", text)));
}

Result<Manner::Progress> parse_progress(const std::string& text) {
  if (text == "bar") return Manner::Progress::kBar;
  if (text == "json") return Manner::Progress::kJson;
  if (text == "none") return Manner::Progress::kNone;
  return fail(Error::invalid(fmt::format("'{}' is not one of: bar, json, none", text)));
}

// Returns a label such as "-f, --format FMT" or "    --progress[=HOW]".
std::string label_of(const CLI::Option& option) {
  std::string label = "    ";
  if (!option.get_snames().empty()) {
    label = "-" + option.get_snames().front();
    if (!option.get_lnames().empty()) label += ", ";
  }
  if (!option.get_lnames().empty()) label += "--" + option.get_lnames().front();
  const std::string value = option.get_type_name();
  if (!value.empty()) label += value.front() == '[' ? value : " " + value;
  return label;
}

void append_options(std::string& text, const CLI::App& app, bool all) {
  const auto listed = [&](const CLI::Option* it) {
    if (!it->nonpositional() || it->get_group() == kHiddenOptions ||
        (!all && it->get_group() == kRareOptions))
      return false;
    // Each app has its own --help; the top-level one represents all.
    return app.get_parent() == nullptr ||
           (it != app.get_help_ptr() && it != app.get_help_all_ptr());
  };
  for (const CLI::Option* option : app.get_options(listed))
    text += fmt::format("  {:<{}}{}\n", label_of(*option) + " ", kDescriptionColumn - 2,
                        option->get_description());
}

}  // namespace

CLI::Option* add_switch(CLI::App& app, const std::string& names, bool& target,
                        const std::string& description) {
  return app.add_flag(names, target, description)
      ->type_name("")
      ->take_last()
      ->disable_flag_override();
}

void add_output_option(CLI::App& app, bool& json, const std::string& description) {
  CLI::Option* const same = app.add_flag_callback(
      "--json", [&json] { json = true; }, "the same as --output=json");
  same->type_name("")->take_last()->disable_flag_override()->group(kRareOptions);
  add_parsed_option(
      app, "--output", "AS", json,
      [same](const std::string& text) -> Result<bool> {
        if (text != "human" && text != "json")
          return fail(Error::invalid(fmt::format("'{}' is neither human nor json", text)));
        if (text == "human" && same->count() > 0)
          return fail(Error::invalid("human: contradicts --json"));
        return text == "json";
      },
      description);
}

bool has_output_option(const CLI::App& app) {
  return app.count("--output") + app.count("--json") > 0;
}

void add_manner_options(CLI::App& app, Manner& manner) {
  add_switch(app, "-q,--quiet", manner.quiet, "print no progress, no summary and no warnings");
  add_switch(app, "-v,--verbose", manner.verbose, "print more");
  add_switch(app, "-x,--trace", manner.trace, "like -v, with versions and the calls of libguestfs")
      ->group(kRareOptions);
  // A flag, so that a value is accepted only after "=", never as the next word.
  app.add_flag("-p{bar},--progress{bar}")
      ->description("show progress from the start; HOW: bar, json or none")
      ->type_name("[=HOW]")
      ->each([&manner](const std::string& text) {
        const auto value = parse_progress(text);
        if (!value) throw UsageError("--progress: " + value.error().message());
        manner.progress = *value;
      });
  add_parsed_option(app, "--color", "WHEN", manner.color, parse_color,
                    "auto (the default), always or never")
      ->group(kRareOptions);
}

std::string help_text(const CLI::App& app, bool all) {
  std::string words;
  for (const CLI::App* it = &app; it != nullptr; it = it->get_parent())
    words.insert(0, words.empty() ? it->get_name() : it->get_name() + " ");
  std::string text = fmt::format("Usage: {}", words);
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  text += commands.empty() ? " [OPTIONS]"
                           : " COMMAND [OPTIONS] ARGUMENTS | COMMAND --help | --help-all";
  for (const CLI::Option* option :
       app.get_options([](const CLI::Option* it) { return it->get_positional(); }))
    text += " " + option->get_name(true);
  // A blank line more would not fit a screen with the list of commands.
  text += "\n\n" + app.get_description() + (commands.empty() ? "\n\n" : "\n");
  for (const CLI::App* command : commands)
    if (all || !command->get_group().empty())
      text += fmt::format("  {:<{}}{}\n", command->get_name(), kDescriptionColumn - 2,
                          command->get_footer());
  // A list of commands fills a screen: common options are in the help of each command.
  if (!commands.empty() && !all) return text;
  append_options(text, app, all);
  for (const CLI::App* above = app.get_parent(); above != nullptr; above = above->get_parent())
    append_options(text, *above, all);
  return text;
}

std::string usage_message(const CLI::ParseError& error) {
  std::string message = error.what();
  if (error.get_name() != "ArgumentMismatch") return message;
  // CLI11's messages: "--threads: 1 required N missing", "force was given a disallowed flag
  // override".
  const std::string name = message.substr(0, message.find_first_of(": "));
  if (message.find(" missing") != std::string::npos) return name + ": its value is missing";
  return fmt::format("{}{}: accepts no value", name.size() == 1 ? "-" : "--", name);
}

void refuse_leftovers(const CLI::App& app) {
  for (const std::string& word : app.remaining(true)) {
    if (word == "--") continue;
    const bool option = word.size() > 1 && word.front() == '-';
    throw UsageError(
        fmt::format("{} '{}'", option ? "unknown option" : "unexpected argument", word));
  }
}

void refuse_empty_values(const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    if (word == "--") return;
    if (word.size() > 3 && word.substr(0, 2) == "--" && word.find('=') == word.size() - 1)
      throw UsageError(fmt::format("{}: its value is empty", word.substr(0, word.size() - 1)));
  }
}

}  // namespace vc::tool
