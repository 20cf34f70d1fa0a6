// nbdkit-qcow2-plugin: the callbacks of nbdkit, except those for requests (requests.cc). The work
// is in served_image.cc.

#include <fmt/format.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <string>

#include "base/printable.h"
#include "plugin/connection.h"
#include "plugin/parameters.h"
#include "plugin/requests.h"
#include "plugin/served_image.h"
#include "qcow2/build/create_image.h"

using namespace vc;
using plugin::answer;
using plugin::Connection;
using plugin::connection_of;
using plugin::guarded;
using plugin::report;

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

// The first two: see requests.h. Set by -D qcow2.stats=1: print write statistics at the end.
extern "C" {
NBDKIT_DLL_PUBLIC int qcow2_debug_read = 0;
NBDKIT_DLL_PUBLIC int qcow2_debug_extents = 0;
NBDKIT_DLL_PUBLIC int qcow2_debug_stats = 0;
}

namespace {

// nbdkit's own limit on a read or a write.
constexpr uint32_t kMaxRequest = 64 << 20;

plugin::Parameters parameters;
std::unique_ptr<plugin::ServedImage> image;
std::shared_ptr<qcow2::Losses> losses;  // set with salvage=true, else nullptr

int on_config(const char* key, const char* value) noexcept {
  return guarded(-1, [&] { return parameters.set(key, value); });
}

int on_config_complete() noexcept {
  return guarded(-1, [] { return parameters.complete(); });
}

// Called last while errors still reach the user. No thread that starts here may stay: nbdkit forks
// afterwards.
int on_get_ready() noexcept {
  return guarded(-1, [] {
    plugin::Config config = parameters.config();
    config.open.format = qcow2::Format::kQcow2;
    config.open.writable = !config.open.force_share && !config.open.losses;
    losses = config.open.losses;
    config.open.force_share_option = "force-share=true";
    if (parameters.create()) {
      const auto made = qcow2::create_image(config.file, parameters.image());
      if (!made) {
        report(made.error());
        return -1;
      }
    }
    auto opened = plugin::ServedImage::open(config);
    if (!opened) {
      report(opened.error());
      return -1;
    }
    image = std::move(*opened);
    return 0;
  });
}

// Reports the ranges that clients read as zeros although they have lost data.
void tell_losses() {
  constexpr size_t kShown = 50;
  const auto all = losses->list(UINT64_MAX);
  for (size_t i = 0; i < std::min(all.size(), kShown); ++i)
    nbdkit_error("lost: guest offset %#" PRIx64 ", %" PRIu64 " bytes: %s", all[i].at.value(),
                 all[i].length, qcow2::describe(all[i].reason));
  if (all.size() > kShown) nbdkit_error("lost: and %zu more ranges", all.size() - kShown);
}

// Called after the last connection has closed: writes the remaining changes and truncates the file.
void on_cleanup() noexcept {
  guarded(-1, [] {
    if (!image) return 0;
    if (answer(image->close()) == -1) return -1;
    if (losses) tell_losses();
    const auto statistics = image->statistics();
    if (qcow2_debug_stats == 0 || !statistics) return 0;
    const std::string line = fmt::format(
        "qcow2: allocated {} clusters, zeroed {}, freed {}; shrank the file by {} bytes",
        statistics->allocated, statistics->zeroed, statistics->freed, statistics->truncated);
    // nbdkit_debug needs -v, which also logs each request.
    std::fprintf(stderr, "%s\n", line.c_str());
    return 0;
  });
}

void on_unload() noexcept {
  image.reset();
}

void on_dump_plugin() noexcept {
  for (const char* feature : {"zlib", "zstd", "extended_l2", "data_file", "snapshots", "backing",
                              "extents", "write", "create"})
    std::printf("qcow2_%s=yes\n", feature);
}

int on_list_exports(int /*readonly*/, int /*is_tls*/, nbdkit_exports* exports) noexcept {
  return guarded(-1, [&] {
    for (const auto& it : image->exports())
      if (nbdkit_add_export(exports, it.name.c_str(), it.description.c_str()) == -1) return -1;
    return 0;
  });
}

const char* on_default_export(int /*readonly*/, int /*is_tls*/) noexcept {
  return "";
}

const char* on_export_description(void* handle) noexcept {
  return connection_of(handle).served->description().c_str();
}

void* on_open(int readonly) noexcept {
  return guarded(static_cast<void*>(nullptr), [&]() -> void* {
    const char* const name = nbdkit_export_name();
    if (!name) return nullptr;
    auto disk = image->disk(name);
    if (!disk) {
      report(disk.error());
      return nullptr;
    }
    if (!readonly) {
      std::string why;
      if (answer(image->start_writing(**disk, why)) == -1) return nullptr;
      if (!why.empty()) nbdkit_error("served read-only: %s", printable(why).c_str());
    }
    auto connection = std::make_unique<Connection>();
    connection->writable = !readonly && (*disk)->write_path() != nullptr;
    connection->served = std::move(*disk);
    return connection.release();
  });
}

// Flushes the changes of a client that disconnects without a flush.
void on_close(void* handle) noexcept {
  const std::unique_ptr<Connection> connection(&connection_of(handle));
  guarded(-1, [&] {
    return connection->changed ? answer(connection->served->write_path()->flush()) : 0;
  });
}

int64_t on_get_size(void* handle) noexcept {
  return static_cast<int64_t>(connection_of(handle).served->size());
}

int on_can_write(void* handle) noexcept {
  return connection_of(handle).writable ? 1 : 0;
}

// For capabilities that matter only to writers.
int on_yes(void* /*handle*/) noexcept {
  return 1;
}

int on_can_fua(void* /*handle*/) noexcept {
  return NBDKIT_FUA_NATIVE;
}

// All connections share one image: each reads what another wrote, and a flush on one covers all.
int on_can_multi_conn(void* /*handle*/) noexcept {
  return 1;
}

int on_can_cache(void* /*handle*/) noexcept {
  return NBDKIT_CACHE_NATIVE;
}

int on_block_size(void* /*handle*/, uint32_t* minimum, uint32_t* preferred,
                  uint32_t* maximum) noexcept {
  *minimum = 1;
  *preferred = static_cast<uint32_t>(image->preferred_block_size());
  *maximum = kMaxRequest;
  return 0;
}

nbdkit_plugin create_plugin() {
  nbdkit_plugin it{};
  it.name = "qcow2";
  it.longname = "nbdkit QCOW2 plugin";
  it.version = VIRT_COMPACT_VERSION;
  it.description =
      "Serves the disk in a QCOW2 image, for reading and writing, and its internal snapshots.";
  it.magic_config_key = "file";
  it.config_help = plugin::Parameters::kHelp;
  it.cleanup = on_cleanup;
  it.unload = on_unload;
  it.config = on_config;
  it.config_complete = on_config_complete;
  it.get_ready = on_get_ready;
  it.dump_plugin = on_dump_plugin;
  it.list_exports = on_list_exports;
  it.default_export = on_default_export;
  it.export_description = on_export_description;
  it.open = on_open;
  it.close = on_close;
  it.get_size = on_get_size;
  it.can_write = on_can_write;
  it.can_flush = on_yes;
  it.can_trim = on_yes;
  it.can_zero = on_yes;
  it.can_fast_zero = on_yes;
  it.can_fua = on_can_fua;
  it.can_multi_conn = on_can_multi_conn;
  it.can_cache = on_can_cache;
  it.block_size = on_block_size;
  plugin::set_requests(it);
  return it;
}

nbdkit_plugin qcow2_plugin = create_plugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(qcow2_plugin)
