#include "plugin/parameters.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "base/printable.h"
#include "qcow2/format/geometry.h"

namespace vc::plugin {

namespace {

constexpr int64_t kMinCacheSize = 64 << 10;

// Parses a parameter that accepts one of two words.
int choose(const char* key, const char* value, const char* yes, const char* no, bool& chosen) {
  const std::string_view word = value;
  if (word != yes && word != no) {
    nbdkit_error("%s=%s: it is %s or %s", key, printable(word).c_str(), yes, no);
    return -1;
  }
  chosen = word == yes;
  return 0;
}

int parse_bool(const char* value, bool& result) {
  const int parsed = nbdkit_parse_bool(value);
  if (parsed < 0) return -1;
  result = parsed != 0;
  return 0;
}

}  // namespace

const char* const Parameters::kHelp =
    "[file=]<DISK>              (required) The QCOW2 image.\nsnapshot=<ID|NAME>         Serve this "
    "internal snapshot as the disk.\nbacking=owner|follow|deny|none\n                           "
    "Which backing files to open (default: owner, only files\n                           that the "
    "owner of the image can open).\ndata-file=owner|follow|deny\n                           The "
    "same for an external data file.\nuntrusted=<BOOL>           Treat the image as hostile: deny "
    "both, and set limits.\nforce-share=<BOOL>         Read an image that another process writes "
    "to (default: false).\nsalvage=<BOOL>             Read a damaged image: zeros for lost data "
    "(default: false).\ndiscard=unmap|ignore       Whether trims free space (default: unmap, the "
    "file shrinks).\ndetect-zeroes=off|on|unmap Whether to find zeros in writes (default: "
    "off).\ncoalesce-discard=<BOOL>    Join small trims to whole clusters (default: false);\n  "
    "zero-fragments=<BOOL>      write zeros to trims that fill no cluster.\ncreate=true            "
    "    Create the image first:\n  size=<SIZE>                (required) the size of its disk,\n  "
    "cluster-size=<SIZE>        its cluster size, 512 to 2M (default: 64K).\ncache-size=<SIZE>     "
    "     Memory for L1 and L2 tables (default: 32M).\npassphrase=<TEXT|+FILE|-|-FD>\n         "
    "                  Opens an encrypted image; may be given several times.";

int Parameters::set(const char* key, const char* value) {
  const std::string_view name = key;
  if (name == "file") return set_file(value);
  if (name == "backing") return set_backing(value);
  if (name == "data-file") return set_data_file(value);
  if (name == "untrusted") return parse_bool(value, untrusted_);
  if (name == "force-share") return parse_bool(value, config_.open.force_share);
  if (name == "salvage") return set_salvage(value);
  if (name == "discard") return set_discard(value);
  if (name == "detect-zeroes") return set_detect_zeroes(value);
  if (name == "coalesce-discard") return parse_bool(value, config_.write.coalesce_discard);
  if (name == "zero-fragments") return parse_bool(value, config_.write.zero_fragments);
  if (name == "cache-size") return set_cache_size(value);
  if (name == "snapshot") return set_snapshot(value);
  if (name == "passphrase") return set_passphrase(value);
  if (name == "create") return parse_bool(value, create_);
  if (name == "size") return set_size(value);
  if (name == "cluster-size") return set_cluster_size(value);
  nbdkit_error("unknown parameter '%s'", printable(name).c_str());
  return -1;
}

int Parameters::complete() {
  if (config_.file.empty()) {
    nbdkit_error("no image is given: give its path, as in: nbdkit qcow2 disk.qcow2");
    return -1;
  }
  if (create_ && !has_size_) {
    nbdkit_error("create=true needs size=SIZE, the size of the disk");
    return -1;
  }
  if (!create_ && (has_size_ || has_cluster_size_)) {
    nbdkit_error("%s= needs create=true: it sets a property of a new image",
                 has_size_ ? "size" : "cluster-size");
    return -1;
  }
  if (config_.write.zero_fragments && !config_.write.coalesce_discard) {
    nbdkit_error("zero-fragments=true needs coalesce-discard=true");
    return -1;
  }
  if (create_ && config_.open.force_share) {
    nbdkit_error("create=true and force-share=true: no other process uses a new image");
    return -1;
  }
  if (create_ && config_.open.losses) {
    nbdkit_error("create=true and salvage=true: a new image is not damaged");
    return -1;
  }
  if (create_ && !keys_->empty()) {
    nbdkit_error("create=true and passphrase=: a new image is not encrypted");
    return -1;
  }
  if (create_ && !config_.snapshot.empty()) {
    nbdkit_error("create=true and snapshot=: a new image has no snapshots");
    return -1;
  }
  return resolve_trust();
}

int Parameters::resolve_trust() {
  qcow2::Trust& trust = config_.open.trust;
  trust.names.prefix = "";
  trust.keys = keys_;
  if (!untrusted_) return 0;
  if (create_) {
    nbdkit_error("create=true and untrusted=true: a new image is not hostile");
    return -1;
  }
  const auto data_file = trust.names.data_file;
  if ((backing_given_ && trust.names.backing != qcow2::NameRule::kDeny &&
       trust.names.backing != qcow2::NameRule::kLeaveOut) ||
      (data_file && *data_file != qcow2::NameRule::kDeny)) {
    nbdkit_error("untrusted=true opens no file that the image names: omit backing= and data-file=");
    return -1;
  }
  if (!backing_given_) trust.names.backing = qcow2::NameRule::kDeny;
  trust.names.data_file = qcow2::NameRule::kDeny;
  trust.limits.emplace();
  return 0;
}

int Parameters::set_salvage(const char* value) {
  bool salvage = false;
  if (parse_bool(value, salvage) == -1) return -1;
  config_.open.losses = salvage ? std::make_shared<qcow2::Losses>() : nullptr;
  return 0;
}

int Parameters::set_file(const char* value) {
  if (!config_.file.empty()) {
    nbdkit_error("file= is given twice: the plugin serves one image");
    return -1;
  }
  // realpath() is unsuitable: a relative backing file name is relative to the path that the user
  // gave.
  char* const path = nbdkit_absolute_path(value);
  if (!path) return -1;
  config_.file = path;
  std::free(path);
  return 0;
}

int Parameters::set_backing(const char* value) {
  const auto rule = qcow2::parse_name_rule(value);
  if (!rule) {
    nbdkit_error("backing=%s: the value must be owner, follow, deny or none",
                 printable(value).c_str());
    return -1;
  }
  config_.open.trust.names.backing = *rule;
  backing_given_ = true;
  return 0;
}

int Parameters::set_data_file(const char* value) {
  const auto rule = qcow2::parse_name_rule(value);
  if (!rule || *rule == qcow2::NameRule::kLeaveOut) {
    nbdkit_error("data-file=%s: the value must be owner, follow or deny", printable(value).c_str());
    return -1;
  }
  config_.open.trust.names.data_file = rule;
  return 0;
}

int Parameters::set_discard(const char* value) {
  return choose("discard", value, "unmap", "ignore", config_.write.writer.discard);
}

int Parameters::set_detect_zeroes(const char* value) {
  using DetectZeroes = WritePath::Options::DetectZeroes;
  const std::string_view word = value;
  if (word == "off") {
    config_.write.detect_zeroes = DetectZeroes::kOff;
  } else if (word == "on") {
    config_.write.detect_zeroes = DetectZeroes::kOn;
  } else if (word == "unmap") {
    config_.write.detect_zeroes = DetectZeroes::kUnmap;
  } else {
    nbdkit_error("detect-zeroes=%s: the value must be off, on or unmap", printable(word).c_str());
    return -1;
  }
  return 0;
}

int Parameters::set_cache_size(const char* value) {
  const int64_t size = nbdkit_parse_size(value);
  if (size < 0) return -1;
  if (size < kMinCacheSize) {
    nbdkit_error("cache-size=%s: the value must be at least 64K", printable(value).c_str());
    return -1;
  }
  config_.open.cache_size = static_cast<uint64_t>(size);
  return 0;
}

int Parameters::set_snapshot(const char* value) {
  if (*value == '\0') {
    nbdkit_error("snapshot= is empty: give the id or the name of a snapshot");
    return -1;
  }
  config_.snapshot = value;
  return 0;
}

// nbdkit knows the forms: the passphrase itself, +FILE, - and -FD.
int Parameters::set_passphrase(const char* value) {
  char* text = nullptr;
  if (nbdkit_read_password(value, &text) == -1) return -1;
  keys_->add(crypto::Secret(std::string_view(text)));
  ::explicit_bzero(text, std::strlen(text));
  std::free(text);
  return 0;
}

int Parameters::set_size(const char* value) {
  const int64_t size = nbdkit_parse_size(value);
  if (size < 0) return -1;
  image_.size = static_cast<uint64_t>(size);
  has_size_ = true;
  return 0;
}

int Parameters::set_cluster_size(const char* value) {
  const int64_t size = nbdkit_parse_size(value);
  if (size < 0) return -1;
  const auto bytes = static_cast<uint64_t>(size);
  if (!std::has_single_bit(bytes) || bytes < (uint64_t{1} << qcow2::Geometry::kMinClusterBits) ||
      bytes > (uint64_t{1} << qcow2::Geometry::kMaxClusterBits)) {
    nbdkit_error("cluster-size=%s: the value must be a power of two from 512 to 2M",
                 printable(value).c_str());
    return -1;
  }
  image_.cluster_bits = static_cast<unsigned>(std::countr_zero(bytes));
  has_cluster_size_ = true;
  return 0;
}

}  // namespace vc::plugin
