// Option parsing with CLI11, with our own messages.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>

#include "base/result.h"
#include "tool/terminal/console.h"

namespace vc::tool {

// Thrown for an invalid command line, during parsing and checking.
class UsageError : public CLI::ParseError {
 public:
  explicit UsageError(std::string message)
      : CLI::ParseError("UsageError", std::move(message), CLI::ExitCodes::BaseClass) {}
};

// Adds an option. `parse`, a std::string -> Result<T>, converts its text into `target`.
// `placeholder`: name of the value in the help. If the option is repeated, the last one counts.
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

// Adds --output human|json, and the rare option --json. Sets `json` to true for JSON output. A
// contradiction is a UsageError. Every command uses this function.
void add_output_option(CLI::App& app, bool& json, const std::string& description);
// Returns true if one of them was given.
bool has_output_option(const CLI::App& app);

// Adds -q, -v, -p and --color.
void add_manner_options(CLI::App& app, Manner& manner);

// Group of options that only --help-all lists.
inline constexpr const char* kRareOptions = "rare";
// Group of options that no help lists: other programs' names of existing options.
inline constexpr const char* kHiddenOptions = "";

// Returns the --help text of `app`: usage, description, its options and those of its parent. `all`:
// include rare options. At most 79 columns wide if the descriptions are short enough.
std::string help_text(const CLI::App& app, bool all);

// Returns the message of a CLI11 exception, in words for a user.
std::string usage_message(const CLI::ParseError& error);

// Each throws UsageError: for words that no option or positional took, and for "--option=" without
// a value, for which CLI11 would take the next word.
void refuse_leftovers(const CLI::App& app);
void refuse_empty_values(const std::vector<std::string>& words);

}  // namespace vc::tool
