// Options of commands that use NBD servers.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>

#include "nbd/tuning.h"

namespace vc::tool {

// Adds --connections N. The help shows the default of `tuning`.
CLI::Option* add_connections_option(CLI::App& app, nbd::NbdTuning& tuning);

// Adds --retries N.
CLI::Option* add_retries_option(CLI::App& app, nbd::NbdTuning& tuning);

// Adds --timeout SECONDS; 0: no timeout.
CLI::Option* add_timeout_option(CLI::App& app, std::chrono::seconds& timeout);

// Adds --requests N and --request-size SIZE, as rare options.
void add_request_options(CLI::App& app, nbd::NbdTuning& tuning);

}  // namespace vc::tool
