// virt-compact: compacts disk images. Finds the command, runs it, and reports errors.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <exception>

#include "tool/commands/command.h"
#include "tool/commands/foreign_commands.h"
#include "tool/options/arguments.h"
#include "tool/options/bracketed_commands.h"
#include "tool/report/versions.h"
#include "tool/terminal/console.h"
#include "tool/terminal/signals.h"

using namespace vc;

namespace {

using namespace tool;

// The help begins with what most people look for.
constexpr const char* kFirstCommands =
    "  virt-compact optimize --dry-run DISK  show how much smaller a disk would be\n"
    "  virt-compact optimize DISK            make it small; the old disk is kept\n"
    "  virt-compact copy -c SRC DST          write a compressed copy of a disk";

// A parsed command line.
class Program {
 public:
  Program() : app_(kFirstCommands, "virt-compact") {
    app_.set_help_flag("-h,--help", "print this help");
    app_.set_help_all_flag("--help-all", "print this help with all options");
    app_.set_version_flag("-V,--version", "virt-compact " VIRT_COMPACT_VERSION,
                          "print the version");
    app_.require_subcommand(0, 1);
    app_.fallthrough();
    app_.allow_extras();
    add_manner_options(app_, manner_);
    for (const auto& command : commands_) {
      CLI::App* app = app_.add_subcommand(command->name(), command->description());
      app->footer(command->summary());
      command->add_options(*app);
    }
    help_ = app_.add_subcommand("help", "Print the help of COMMAND.");
    help_->footer("print the help of a command");
    help_->group("");  // only in --help-all: --help must fit a screen
    help_->add_option("COMMAND", help_topic_);
  }

  const Manner& manner() const { return manner_; }

  // Returns the exit code.
  int run(int argc, char** argv);

 private:
  // Returns nullptr if there is no command to run; `text_` then has the text to print, and
  // `text_code_` the exit code. Throws CLI::ParseError.
  Command* parse(int argc, char** argv);
  Command* find(const std::string& name) const;
  std::vector<std::string> command_names() const;
  const CLI::App& chosen() const;

  std::vector<std::unique_ptr<Command>> commands_ = make_commands();
  Manner manner_;
  std::string help_topic_;
  CLI::App app_;
  CLI::App* help_;
  std::string text_;
  int text_code_ = kSuccess;
};

Command* Program::find(const std::string& name) const {
  const auto found = std::find_if(commands_.begin(), commands_.end(),
                                  [&](const auto& it) { return name == it->name(); });
  return found != commands_.end() ? found->get() : nullptr;
}

std::vector<std::string> Program::command_names() const {
  std::vector<std::string> names{help_->get_name()};
  for (const auto& command : commands_) names.emplace_back(command->name());
  return names;
}

const CLI::App& Program::chosen() const {
  const auto commands = app_.get_subcommands();
  return commands.empty() ? app_ : *commands.front();
}

// Returns the words of the command line after the first `word`.
std::vector<std::string> after(int argc, char** argv, const std::string& word) {
  char** const found = std::find(argv + 1, argv + argc, word);
  return found == argv + argc ? std::vector<std::string>()
                              : std::vector<std::string>(found + 1, argv + argc);
}

Command* Program::parse(int argc, char** argv) {
  if (argc > 2 && std::string_view(argv[1]) == "qemu-img")
    throw UsageError(unknown_command_message(argv[1], {argv + 2, argv + argc}, command_names()));
  try {
    auto words = fold_commands(std::vector<std::string>(argv + 1, argv + argc));
    refuse_empty_values(words);
    // CLI11 takes words from the back.
    std::reverse(words.begin(), words.end());
    app_.parse(words);
  } catch (const CLI::CallForHelp&) {
    text_ = help_text(chosen(), false);
    return nullptr;
  } catch (const CLI::CallForAllHelp&) {
    text_ = help_text(chosen(), true);
    return nullptr;
  } catch (const CLI::CallForVersion& version) {
    text_ = version.what() + std::string("\n");
    return nullptr;
  }
  if (chosen().get_parent() == nullptr) {
    const auto words = app_.remaining();
    const auto word = std::find_if(words.begin(), words.end(),
                                   [](const std::string& it) { return it.front() != '-'; });
    if (word != words.end())
      throw UsageError(unknown_command_message(*word, after(argc, argv, *word), command_names()));
    refuse_leftovers(app_);
    if (argc > 1) throw UsageError("no command given");
    // A script whose command is missing must not seem to succeed.
    text_ = help_text(app_, false);
    text_code_ = kFailure;
    return nullptr;
  }
  refuse_leftovers(app_);
  if (&chosen() == help_) {
    if (!help_topic_.empty() && find(help_topic_) == nullptr)
      throw UsageError(unknown_command_message(help_topic_, {}, command_names()));
    text_ = help_text(help_topic_.empty() ? app_ : *app_.get_subcommand(help_topic_), false);
    return nullptr;
  }
  Command* command = find(chosen().get_name());
  command->check();
  const CLI::Option* const dry_run = chosen().get_option_no_throw("--dry-run");
  if (dry_run != nullptr && dry_run->count() > 0 && !command->metrics().file().empty())
    throw UsageError("--metrics and --dry-run exclude each other: a dry run changes nothing");
  return command;
}

// Runs the command, and writes its metrics, also those of a run that fails.
Result<int> run_measured(Command& command, const Console& console) {
  RETURN_IF_ERROR(command.metrics().open());
  auto done = command.run(console);
  const bool success = done && *done == kSuccess;
  const auto written = command.metrics().write(command.name(), success);
  if (written) return done;
  if (success) return fail(written.error());
  console.error(written.error().message());
  return done;
}

int Program::run(int argc, char** argv) {
  Command* command = nullptr;
  try {
    command = parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const Console console(manner_);
    console.error(usage_message(error));
    const bool of_command = chosen().get_parent() != nullptr && &chosen() != help_;
    command = of_command ? find(chosen().get_name()) : nullptr;
    console.hint(
        fmt::format("Try 'virt-compact {}--help'.", of_command ? chosen().get_name() + " " : ""));
    return command != nullptr ? command->failure_code() : kFailure;
  }
  manner_.verbose = manner_.verbose || manner_.trace;
  const Console console(manner_);
  if (command == nullptr) {
    const auto printed = console.print(text_);
    if (printed) return text_code_;
    console.error(printed.error().message());
    return kFailure;
  }
  print_versions(console, VIRT_COMPACT_VERSION);
  if (manner_.trace) ::setenv("LIBGUESTFS_TRACE", "1", 1);
  const auto done = run_measured(*command, console);
  if (done) return *done;
  console.error(done.error().message());
  if (done.error().kind() == Error::Kind::kCancelled && stop_signal() != 0) die_by(stop_signal());
  return command->failure_code();
}

}  // namespace

int main(int argc, char** argv) {
  prepare_process();
  try {
    Program program;
    return program.run(argc, argv);
  } catch (const std::bad_alloc&) {
    Console(Manner()).error("out of memory");
  } catch (const std::exception& error) {
    Console(Manner()).error(error.what());
  }
  return kFailure;
}
