#include "tool/options/nbd_options.h"

#include <fmt/format.h>

#include "tool/options/arguments.h"
#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

constexpr unsigned kMaxConnections = 64;
constexpr unsigned kMaxRequests = 1024;
constexpr uint64_t kMinRequest = 4 << 10;
constexpr uint64_t kMaxRequest = 32 << 20;
constexpr unsigned kMaxRetries = 1000;
// Ten years: does not overflow in any clock ticks.
constexpr uint64_t kMaxTimeout = 10ull * 365 * 24 * 3600;

auto parse_count(unsigned low, unsigned high) {
  return [low, high](const std::string& text) -> Result<unsigned> {
    ASSIGN_OR_RETURN(const uint64_t value, parse_number(text, low, high));
    return static_cast<unsigned>(value);
  };
}

}  // namespace

CLI::Option* add_connections_option(CLI::App& app, nbd::NbdTuning& tuning) {
  return add_parsed_option(
      app, "--connections", "N", tuning.connections, parse_count(1, kMaxConnections),
      fmt::format("connections to an NBD server; default {}", tuning.connections));
}

CLI::Option* add_retries_option(CLI::App& app, nbd::NbdTuning& tuning) {
  return add_parsed_option(
      app, "--retries", "N", tuning.retries, parse_count(0, kMaxRetries),
      fmt::format("reconnects if a server disconnects; default {}", tuning.retries));
}

CLI::Option* add_timeout_option(CLI::App& app, std::chrono::seconds& timeout) {
  return add_parsed_option(
      app, "--timeout", "SECONDS", timeout,
      [](const std::string& text) -> Result<std::chrono::seconds> {
        ASSIGN_OR_RETURN(const uint64_t seconds, parse_number(text, 0, kMaxTimeout));
        return std::chrono::seconds(seconds);
      },
      fmt::format("wait for an answer; default {}, 0: no limit", timeout.count()));
}

void add_request_options(CLI::App& app, nbd::NbdTuning& tuning) {
  add_parsed_option(app, "--requests", "N", tuning.requests, parse_count(1, kMaxRequests),
                    fmt::format("requests in flight on a connection; default {}", tuning.requests))
      ->group(kRareOptions);
  add_parsed_option(
      app, "--request-size", "SIZE", tuning.request_size,
      [](const std::string& value) {
        return parse_power_of_two(value, kMinRequest, kMaxRequest, "from 4k to 32M");
      },
      "size of an NBD request, 4k to 32M; default 256k")
      ->group(kRareOptions);
}

}  // namespace vc::tool
