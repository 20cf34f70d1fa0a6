// Reading options with CLI11, with messages of our own.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>

#include "base/result.h"
#include "tool/terminal/console.h"

namespace tool {

// Thrown while arguments are parsed and checked, when they make no sense.
class UsageError : public CLI::ParseError {
 public:
  explicit UsageError(std::string message)
      : CLI::ParseError("UsageError", std::move(message), CLI::ExitCodes::BaseClass) {}
};

// An option whose text `parse`, a std::string -> Result<T>, turns into `target`.  `placeholder` is
// what the help calls the value.  When it is given several times the last one counts.
template <typename T, typename Parse>
CLI::Option* add_parsed_option(CLI::App& app, const std::string& names,
                               const std::string& placeholder, T& target, Parse parse,
                               const std::string& description) {
  const std::string shown = names.substr(names.find(',') + 1);
  return app
      .add_option_function<std::string>(
          names,
          [&target, parse, shown](const std::string& text) {
            auto value = parse(text);
            if (!value) throw UsageError(shown + ": " + value.error().message());
            target = std::move(*value);
          },
          description)
      ->type_name(placeholder)
      ->take_last();
}

CLI::Option* add_switch(CLI::App& app, const std::string& names, bool& target,
                        const std::string& description);

// --output human|json, and --json, which is rare: `json` becomes whether it is to be JSON.  What
// contradicts itself is a UsageError.  Each command has them by this.
void add_output_option(CLI::App& app, bool& json, const std::string& description);
// Whether one of them was given.
bool has_output_option(const CLI::App& app);

// -q, -v, -p and --color.
void add_manner_options(CLI::App& app, Manner& manner);

// The group of options that only --help-all lists.
inline constexpr const char* kRareOptions = "rare";
// And of those that no help lists: other programs' names for what is here under another one.
inline constexpr const char* kHiddenOptions = "";

// What --help prints for `app`: usage, what it does, its options and those of the app above it;
// `all`: the rare ones, too.  At most 79 columns wide if the descriptions are short enough.
std::string help_text(const CLI::App& app, bool all);

// What an exception of CLI11's says, in words for a user.
std::string usage_message(const CLI::ParseError& error);

// Throws UsageError for words that no option and no positional took, and for "--option=" without
// a value, for which CLI11 would take the next word.
void refuse_leftovers(const CLI::App& app);
void refuse_empty_values(const std::vector<std::string>& words);

}  // namespace tool
