// The options of commands that speak to NBD servers.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>

#include "nbd/tuning.h"

namespace tool {

// --connections N; the help names what `tuning` has as the default.
CLI::Option* add_connections_option(CLI::App& app, copy::NbdTuning& tuning);

// --retries N.
CLI::Option* add_retries_option(CLI::App& app, copy::NbdTuning& tuning);

// --timeout SECONDS; 0: for ever.
CLI::Option* add_timeout_option(CLI::App& app, std::chrono::seconds& timeout);

// --requests N and --request-size SIZE, among the rare options.
void add_request_options(CLI::App& app, copy::NbdTuning& tuning);

}  // namespace tool
