#include "appliance/disk_server.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "base/rounding.h"
#include "copy/source/open_source.h"
#include "nbd/nbdkit_hint.h"

namespace vc::appliance {

using nbd::NbdEndpoint;
using nbd::NbdLimits;
using nbd::NbdSession;
using nbd::NbdTarget;

namespace {

// Granularity of the scratch file, bytes: the block size of most filesystems.
constexpr uint64_t kScratchBlock = 4096;
// Limits of the granularity, bytes. The smallest one is used if the server reports none.
constexpr uint64_t kSmallest = 512;
constexpr uint64_t kLargest = 2 << 20;
// Time for a server to end: it truncates its image at the end, which may move much data.
constexpr std::chrono::minutes kPatience(15);
// Time for a proxy to end: it writes no data of its own. While its server is silent, it does not
// end by itself.
constexpr std::chrono::seconds kProxyPatience(5);

// Prefers the plugin in this program's build tree to the installed one.
std::string plugin(const char* name) {
  return nbd::built_plugin(name).value_or(name);
}

std::vector<std::string> proxy_parameters(const std::string& uri, std::chrono::seconds timeout,
                                          const nbd::ProxyNote& note) {
  return {plugin("checked-nbd"), "uri=" + uri, fmt::format("timeout={}", timeout.count()),
          "note=" + note.path()};
}

// Returns nbdkit's parameters for a file.
std::vector<std::string> file_parameters(const GuestDisk& disk, DiskServer::Access access) {
  if (disk.format == qcow2::Format::kRaw) return {"file", "file=" + disk.given.name};
  std::vector<std::string> words{plugin("qcow2"), "file=" + disk.given.name};
  const qcow2::NamePolicy& names = disk.given.names;
  words.push_back(std::string("backing=") + to_string(names.backing));
  words.push_back(std::string("data-file=") + to_string(names.data_file_rule()));
  if (access == DiskServer::Access::kTrim)
    words.insert(words.end(), {"detect-zeroes=unmap", "coalesce-discard=true"});
  return words;
}

Result<void> check_limits(const NbdLimits& limits, DiskServer::Access access,
                          const std::string& name) {
  if (limits.read_only && access != DiskServer::Access::kScratch)
    return fail(Error::protocol(EROFS, name + ": the server allows no writes to the disk"));
  if (!limits.can_trim && access != DiskServer::Access::kWrite)
    return fail(Error::protocol(
        ENOTSUP, name + ": the server does not support trim, so no space can be freed: start it "
                        "with discard enabled (qemu-nbd --discard=unmap)"));
  return {};
}

}  // namespace

Result<std::unique_ptr<DiskServer>> DiskServer::start(const GuestDisk& disk, Access access,
                                                      const Cancel& cancel) {
  std::unique_ptr<DiskServer> server(new DiskServer(disk, cancel));
  std::vector<std::string> words;
  if (!disk.local) {
    ASSIGN_OR_RETURN(const auto target, copy::nbd_target(disk.given.name, disk.given.command));
    ASSIGN_OR_RETURN(server->remote_, NbdEndpoint::open(*target, server->patient_));
    server->remote_uri_ = server->remote_->uri();
    if (const auto* const started = server->remote_->server())
      server->remote_uri_ = "nbd+unix:///?socket=" + started->socket_path();
    RETURN_IF_ERROR(server->ask_remote({.retries = 0, .timeout = disk.given.timeout}, access));
    ASSIGN_OR_RETURN(server->note_, nbd::ProxyNote::make());
    words = proxy_parameters(server->remote_uri_, disk.given.timeout, *server->note_);
  } else {
    server->granularity_ = disk.granularity;
    words = file_parameters(disk, access);
    if (disk.encrypted) RETURN_IF_ERROR(server->hand_over_keys(words));
  }
  server->granularity_ = std::clamp(server->granularity_, kSmallest, kLargest);

  std::vector<std::string> command{"nbdkit"};
  if (access == Access::kScratch) command.emplace_back("--filter=cow");
  for (std::string& word : words) command.push_back(std::move(word));
  if (access == Access::kScratch)
    command.push_back(fmt::format("cow-block-size={}", kScratchBlock));
  if (auto served = server->serve(command); !served)
    return fail(server->explained(std::move(served).error()));
  RETURN_IF_ERROR(check_limits(server->limits_, access, disk.name));
  return server;
}

// Adds the parameters by which the plugin opens an encrypted image.
Result<void> DiskServer::hand_over_keys(std::vector<std::string>& words) {
  for (const auto& passphrase : disk_.given.keys->passphrases) {
    ASSIGN_OR_RETURN(PassphraseFile file, PassphraseFile::make(*passphrase));
    words.push_back("passphrase=+" + file.path());
    keys_.push_back(std::move(file));
  }
  return {};
}

// Our own servers get no timeout: they always answer, but may take long. A proxy answers when the
// user's server has answered, or when it has given up this server.
Result<void> DiskServer::serve(const std::vector<std::string>& command) {
  const std::string context = "base:allocation";
  ASSIGN_OR_RETURN(endpoint_, with_context(NbdEndpoint::open({"", command}, patient_), disk_.name));
  if (!disk_.local) endpoint_->server()->set_patience(kProxyPatience);
  ASSIGN_OR_RETURN(session_,
                   NbdSession::open(endpoint_, {context},
                                    {.retries = 0, .timeout = std::chrono::seconds(0)}, stop_));
  limits_ = session_->limits();
  status_ = std::make_unique<nbd::NbdStatus>(context, limits_.minimum);
  return {};
}

// Queries the user's server directly, so that errors are about this server and not about the proxy.
Result<void> DiskServer::ask_remote(const nbd::NbdTuning& tuning, Access access) {
  ASSIGN_OR_RETURN(session_, NbdSession::open(remote_, {}, tuning, stop_));
  limits_ = session_->limits();
  RETURN_IF_ERROR(check_limits(limits_, access, disk_.name));
  granularity_ = limits_.preferred;
  ASSIGN_OR_RETURN(table_, partition_table());
  // Disconnects before the proxy connects: the server may accept only one client.
  session_.reset();
  return {};
}

Result<std::optional<DataMap>> DiskServer::data() {
  if (!status_->offered(*session_)) return std::optional<DataMap>{};
  DataMap map;
  std::vector<nbd::NbdStatus::Stretch> stretches;
  for (uint64_t at = 0; at < size();) {
    stretches.clear();
    RETURN_IF_ERROR(status_->ask(*session_, at, size() - at, stretches));
    for (const auto& it : stretches) {
      if (!it.known || (it.flags & nbd::kStatusHole) == 0) map.add(it.at, it.at + it.length);
      at = it.at + it.length;
    }
  }
  // What a proxy without a server does not know counts as data.
  if (const auto lost = loss()) return fail(*lost);
  return std::optional(std::move(map));
}

std::optional<Error> DiskServer::loss() const {
  auto text = note_ ? note_->text() : std::nullopt;
  if (!text) return std::nullopt;
  // The user may have given a command instead of the URI.
  if (const std::string prefix = remote_uri_ + ": "; text->starts_with(prefix))
    text->erase(0, prefix.size());
  return Error::protocol(EIO, fmt::format("{}: {}", disk_.name, *text));
}

Error DiskServer::explained(Error error) const {
  if (error.kind() == Error::Kind::kCancelled) return error;
  return loss().value_or(std::move(error));
}

Error explained(Error error, const std::vector<std::unique_ptr<DiskServer>>& servers) {
  for (const auto& server : servers) error = server->explained(std::move(error));
  return error;
}

// The server may accept only whole blocks.
Result<void> DiskServer::read(uint64_t at, std::span<std::byte> to) {
  const uint64_t block = std::max<uint64_t>(limits_.minimum, 1);
  const uint64_t begin = round_down(at, block);
  const uint64_t end = std::min(round_up(at + to.size(), block), size());
  std::vector<std::byte> bytes(end - begin);
  if (auto read = session_->connection().read_now(bytes, begin); !read)
    return fail(explained(std::move(read).error().with_context(disk_.name)));
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at - begin), to.size(), to.begin());
  return {};
}

Result<PartitionTable> DiskServer::partition_table() {
  if (table_) return *table_;
  return find_partition_table(
      size(), [this](uint64_t at, std::span<std::byte> to) { return read(at, to); });
}

Result<void> DiskServer::flush() {
  if (!limits_.can_flush) return {};
  if (auto flushed = session_->connection().flush_now(); !flushed)
    return fail(explained(std::move(flushed).error().with_context(disk_.name)));
  return {};
}

Result<void> DiskServer::close() {
  session_.reset();
  return with_context(endpoint_->server()->finish(disk_.local ? kPatience : kProxyPatience),
                      disk_.name);
}

}  // namespace vc::appliance
