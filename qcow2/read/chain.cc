#include "qcow2/read/chain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "crypto/encrypted_storage.h"
#include "crypto/locked_storage.h"
#include "qcow2/check/finding.h"
#include "qcow2/format/json_name.h"
#include "qcow2/read/qcow2_layer.h"
#include "qcow2/read/raw_layer.h"
#include "qcow2/read/salvage_layer.h"

namespace vc::qcow2 {

namespace {

// Returns whether a name starts with a protocol, by QEMU's rule: a colon before any slash.
bool has_protocol(const std::string& name) {
  const size_t end = name.find_first_of(":/");
  return end != std::string::npos && name[end] == ':';
}

Result<Format> parse_format(const std::string& name) {
  if (name == "qcow2") return Format::kQcow2;
  if (name == "raw") return Format::kRaw;
  if (name == "luks") return Format::kLuks;
  return fail(Error::unsupported(
      fmt::format("its format is '{}': only qcow2, raw and luks are supported", name)));
}

// A file of the chain that is not open yet.
struct Backing {
  std::string path;
  std::optional<Format> format;  // nullopt: the content decides
  std::string context;           // for messages: the image that names it; empty for the top
  bool writable = false;
};

struct Opened {
  std::shared_ptr<FileStorage> storage;
  std::shared_ptr<FileStorage> data_file;  // nullptr: none
  std::shared_ptr<Image> image;            // nullptr: raw
  std::shared_ptr<Layer> layer;
  std::shared_ptr<const Encryption> encryption;  // nullptr: none
  Format format = Format::kRaw;
  std::optional<Error> read_only;  // why it, or its data file, is not writable
};

constexpr std::string_view kShutDown = "shut it down first";

// Opens a file, for writing if `writable` and permitted; else sets `read_only` to the reason.
// Calls `open (writable)`.
template <typename Open>
Result<std::shared_ptr<FileStorage>> open_unlocked(const Open& open, bool writable,
                                                   std::optional<Error>& read_only) {
  if (writable && !read_only) {
    auto file = open(true);
    const int errnum = file ? 0 : file.error().errnum();
    if (errnum != EACCES && errnum != EPERM && errnum != EROFS) return file;
    read_only = file.error();
  }
  return open(false);
}

// Like open_unlocked(), and locks the file for reading; a lock for writing comes later.
template <typename Open>
Result<std::shared_ptr<FileStorage>> open_file(const Open& open, bool writable,
                                               const OpenOptions& options,
                                               std::optional<Error>& read_only) {
  ASSIGN_OR_RETURN(auto file, open_unlocked(open, writable, read_only));
  RETURN_IF_ERROR(lock_for_reading(*file, options));
  if (options.direct) RETURN_IF_ERROR(file->bypass_cache());
  return file;
}

Result<std::shared_ptr<FileStorage>> open_data_file(const std::string& path, const Header& header,
                                                    const NamedFiles& names,
                                                    const OpenOptions& options, bool writable,
                                                    std::optional<Error>& read_only) {
  const auto name = header.data_file();
  if (!name)
    return fail(Error::corrupt("the image needs an external data file, but does not name it"));
  constexpr auto kKind = NamedFiles::Kind::kDataFile;
  constexpr const char* kContext = "external data file";
  RETURN_IF_ERROR(with_context(names.check_allowed(kKind, *name), kContext));
  ASSIGN_OR_RETURN(const std::string resolved, with_context(resolve_name(path, *name), kContext));
  const auto open = [&](bool write) { return names.open(kKind, resolved, write); };
  return with_context(open_file(open, writable, options, read_only), kContext);
}

Result<std::shared_ptr<FileStorage>> open_image(const Backing& it, const NamedFiles& names,
                                                const OpenOptions& options,
                                                std::optional<Error>& read_only) {
  const auto open = [&](bool write) {
    if (!it.context.empty()) return names.open(NamedFiles::Kind::kBacking, it.path, write);
    return write ? FileStorage::open_writable(it.path) : FileStorage::open_readonly(it.path);
  };
  return open_file(open, it.writable, options, read_only);
}

Result<std::shared_ptr<Layer>> active_salvage_layer(const std::shared_ptr<Image>& image,
                                                    const std::shared_ptr<Losses>& losses) {
  const Header& header = image->header();
  return Qcow2SalvageLayer::open(image, header.l1_table, header.l1_entries, header.size,
                                 Finding::kActive, losses);
}

// Returns whether the user names options of the plugin, not of the command.
bool is_plugin(const Trust& trust) {
  return trust.names.prefix.empty();
}

// Returns the passphrases for an encrypted image, or an error that says how to give one.
Result<const crypto::KeyRing*> keys_for(const char* method, const Trust& trust) {
  if (trust.limits)
    return fail(Error::unsupported("the image is encrypted: its content is unknown"));
  if (trust.keys && !trust.keys->empty()) return trust.keys.get();
  return fail(
      Error::invalid(fmt::format("the image is encrypted with {}: give its passphrase ({})", method,
                                 is_plugin(trust) ? "passphrase=+FILE" : "--key disk:file:FILE")));
}

Result<const crypto::KeyRing*> keys_for_disk(const Trust& trust) {
  auto keys = keys_for("LUKS", trust);
  if (keys) return keys;
  return fail(Error::invalid(fmt::format("{}, or take its encrypted bytes as the disk ({})",
                                         keys.error().message(),
                                         is_plugin(trust) ? "format=raw" : "-f raw")));
}

// Returns whether only metadata is wanted, for which no passphrase is needed.
bool stays_locked(const OpenOptions& options) {
  const bool has_keys = options.trust.keys && !options.trust.keys->empty();
  return options.metadata_only && !has_keys && !options.trust.limits;
}

std::shared_ptr<const Encryption> locked(CryptMethod method) {
  return std::make_shared<Encryption>(Encryption{method, {}, nullptr});
}

Result<std::shared_ptr<const Encryption>> unlock_image(const Storage& file, const Header& header,
                                                       const OpenOptions& options) {
  if (header.crypt_method == CryptMethod::kNone) return std::shared_ptr<const Encryption>();
  if (stays_locked(options)) return locked(header.crypt_method);
  const char* const method = header.crypt_method == CryptMethod::kLuks ? "LUKS" : "AES";
  ASSIGN_OR_RETURN(const crypto::KeyRing* const keys, keys_for(method, options.trust));
  auto unlocked = unlock(file, header, *keys);
  // Not an error about damage: then the advice would be to salvage, which needs the key, too.
  if (!unlocked && unlocked.error().kind() == Error::Kind::kCorrupt)
    return fail(Error::invalid(unlocked.error().message() +
                               ": without it, the data cannot be decrypted: restore the LUKS "
                               "header, or the image, from a backup"));
  return unlocked;
}

Result<void> open_luks_disk(const std::shared_ptr<FileStorage>& file, const OpenOptions& options,
                            Opened& opened) {
  if (stays_locked(options)) {
    ASSIGN_OR_RETURN(const auto luks, crypto::LuksHeader::read_disk(*file));
    ASSIGN_OR_RETURN(opened.layer, RawLayer::open_luks(
                                       std::make_shared<crypto::LockedStorage>(file, luks.payload),
                                       HostOffset(luks.payload)));
    opened.encryption = locked(CryptMethod::kLuks);
    return {};
  }
  ASSIGN_OR_RETURN(const crypto::KeyRing* const keys, keys_for_disk(options.trust));
  ASSIGN_OR_RETURN(UnlockedDisk disk, unlock_disk(*file, *keys));
  ASSIGN_OR_RETURN(opened.layer,
                   RawLayer::open_luks(std::make_shared<crypto::EncryptedStorage>(
                                           file, disk.encryption->cipher, disk.payload),
                                       HostOffset(disk.payload)));
  opened.encryption = std::move(disk.encryption);
  return {};
}

Result<Opened> open_layer(const Backing& it, std::vector<FileStorage::Identity>& seen,
                          const std::shared_ptr<TableCache>& cache, NamedFiles& names,
                          const OpenOptions& options) {
  Opened opened;
  ASSIGN_OR_RETURN(const auto file, open_image(it, names, options, opened.read_only));
  if (std::find(seen.begin(), seen.end(), file->identity()) != seen.end())
    return fail(Error::corrupt(
        fmt::format("{}: the backing chain leads back to this file, so it has no end", it.path)));
  seen.push_back(file->identity());
  names.add_author(*file);

  Format format = it.format.value_or(Format::kRaw);
  if (!it.format) {
    ASSIGN_OR_RETURN(format, probe_format(*file));
  }
  opened.storage = file;
  opened.format = format;
  if (format != Format::kQcow2) {
    if (format == Format::kLuks) {
      RETURN_IF_ERROR(with_context(open_luks_disk(file, options, opened), it.path));
    } else {
      ASSIGN_OR_RETURN(opened.layer, RawLayer::open(file));
    }
    if (options.losses) opened.layer = std::make_shared<SalvageLayer>(opened.layer, options.losses);
    return opened;
  }
  const auto purpose = options.losses ? Header::Purpose::kSalvage : Header::Purpose::kUnlock;
  ASSIGN_OR_RETURN(Header header, with_context(Header::read(*file, purpose), it.path));
  const auto& limits = options.trust.limits;
  if (limits) RETURN_IF_ERROR(with_context(check_header_limits(header, *limits), it.path));
  if (header.has_data_file()) {
    ASSIGN_OR_RETURN(opened.data_file, with_context(open_data_file(it.path, header, names, options,
                                                                   it.writable, opened.read_only),
                                                    it.path));
  }
  ASSIGN_OR_RETURN(opened.encryption, with_context(unlock_image(*file, header, options), it.path));
  if (header.crypt_method == CryptMethod::kAes)
    opened.read_only = Error::unsupported(
        it.path + ": is encrypted with the old AES method, which is insecure: it can only be read");
  if (options.losses) {
    ASSIGN_OR_RETURN(opened.image, Image::open_damaged(file, std::move(header), opened.data_file,
                                                       cache, opened.encryption));
    if (limits) RETURN_IF_ERROR(with_context(check_table_limits(*opened.image, *limits), it.path));
    ASSIGN_OR_RETURN(opened.layer, active_salvage_layer(opened.image, options.losses));
    return opened;
  }
  ASSIGN_OR_RETURN(opened.image, Image::open(file, std::move(header), opened.data_file, cache,
                                             opened.encryption));
  if (limits) RETURN_IF_ERROR(with_context(check_table_limits(*opened.image, *limits), it.path));
  ASSIGN_OR_RETURN(opened.layer, open_active_layer(opened.image));
  return opened;
}

// Returns the backing file of the image at `path`, whose header names one.
Result<Backing> backing_of(const std::string& path, const Header& header, const NamedFiles& names) {
  const std::string context = path + ": backing file";
  RETURN_IF_ERROR(
      with_context(names.check_allowed(NamedFiles::Kind::kBacking, header.backing_file), context));
  Backing backing;
  backing.context = context;
  auto format = header.backing_format();
  if (const std::string driver = json_driver(header.backing_file); !driver.empty()) format = driver;
  if (format) {
    ASSIGN_OR_RETURN(
        backing.format,
        with_context(parse_format(*format), fmt::format("{} '{}'", context, header.backing_file)));
  }
  ASSIGN_OR_RETURN(backing.path, with_context(resolve_name(path, header.backing_file), context));
  return backing;
}

// Adds advice to the error of a missing backing file.
Error with_advice(Error error, const NamePolicy& names) {
  if (error.errnum() != ENOENT) return error;
  const char* const reader = names.prefix.empty() ? "" : "virt-compact copy ";
  return Error::protocol(ENOENT,
                         fmt::format("{} (virt-compact rebase -u sets another name in the image; "
                                     "{}{}backing=none reads the image without this file)",
                                     error.message(), reader, names.prefix));
}

}  // namespace

Result<void> lock_for_reading(FileStorage& file, const OpenOptions& options) {
  if (options.force_share) return file.lock(ImageClaim::force_share(), kShutDown);
  if (options.force_share_option.empty()) return file.lock(ImageClaim::reading(), kShutDown);
  return file.lock(ImageClaim::reading(), fmt::format("{}, or read it anyway with {}", kShutDown,
                                                      options.force_share_option));
}

Result<std::string> resolve_name(const std::string& image_path, const std::string& name) {
  if (name.empty()) return fail(Error::corrupt("the file name is empty"));
  std::string path = name;
  // As in QEMU, a name with a protocol is not relative to the image.
  if (is_json_name(name)) {
    ASSIGN_OR_RETURN(auto properties, parse_json_name(name));
    ASSIGN_OR_RETURN(NamedFile file, with_context(named_file(std::move(properties)), name));
    return file.path;
  }
  if (has_protocol(name)) {
    const std::string protocol = name.substr(0, name.find(':'));
    if (protocol != "file")
      return fail(Error::unsupported(fmt::format(
          "'{}': names with a protocol ({}:) are not supported, only files", name, protocol)));
    path = name.substr(protocol.size() + 1);
    if (path.empty()) return fail(Error::corrupt("the file name is empty"));
    return path;
  }
  if (path.front() == '/') return path;
  const size_t slash = image_path.rfind('/');
  return slash == std::string::npos ? path : image_path.substr(0, slash + 1) + path;
}

Result<Chain> Chain::open(const std::string& path, const OpenOptions& options) {
  const auto cache = std::make_shared<TableCache>(options.cache_size);
  Chain chain;
  chain.force_share_ = options.force_share;
  chain.losses_ = options.losses;
  // The files opened so far: a repetition means that the chain is a cycle.
  std::vector<FileStorage::Identity> seen;
  NamedFiles names(options.trust.names);
  std::optional<Backing> next = Backing{path, options.format, "", options.writable};

  while (next) {
    const Backing current = std::move(*next);
    next.reset();
    if (chain.layers_.size() == kMostLayers)
      return fail(Error::unsupported(
          fmt::format("{} '{}': the backing chain of {} has more than {} images: shorten it first "
                      "(virt-compact flatten, qemu-img rebase)",
                      current.context, current.path, path, kMostLayers)));
    auto opened = open_layer(current, seen, cache, names, options);
    if (!opened) {
      Error error = std::move(opened).error();
      if (current.context.empty()) return fail(std::move(error));
      return fail(with_advice(std::move(error).with_context(current.context), options.trust.names));
    }
    if (chain.layers_.empty()) {
      chain.storage_ = opened->storage;
      chain.top_ = opened->image;
      chain.data_file_ = opened->data_file;
      chain.read_only_ = opened->read_only;
      chain.format_ = opened->format;
    }
    if (opened->image && !chain.layers_.empty()) opened->image->drop_snapshots();
    chain.layers_.push_back(opened->layer);
    chain.encryptions_.push_back(opened->encryption);
    chain.files_.push_back(opened->storage);
    if (opened->data_file) chain.files_.push_back(opened->data_file);
    if (!opened->image || opened->image->header().backing_file.empty()) break;
    const Header& header = opened->image->header();
    if (options.trust.names.backing == NameRule::kLeaveOut) {
      chain.left_out_ = header.backing_file;
      break;
    }
    ASSIGN_OR_RETURN(next, backing_of(current.path, header, names));
  }
  return chain;
}

Disk Chain::disk() const {
  return Disk(layers_);
}

Result<void> Chain::check_writable() const {
  if (!top_)
    return fail(Error::invalid(storage_->name() + ": is not a QCOW2 image: it cannot be written"));
  if (force_share_)
    return fail(Error::invalid(storage_->name() +
                               ": is shared with processes that write to it: it can only be read"));
  if (!left_out_.empty())
    return fail(Error::invalid(
        fmt::format("{}: is opened without its backing file '{}': it can only be read",
                    storage_->name(), left_out_)));
  if (losses_)
    return fail(
        Error::invalid(storage_->name() + ": is opened as a damaged image: it can only be read"));
  if (read_only_) return fail(*read_only_);
  return {};
}

Result<void> Chain::lock_top(ImageClaim claim) const {
  RETURN_IF_ERROR(files_.front()->lock(claim, kShutDown));
  if (!data_file_) return {};
  auto locked = data_file_->lock(claim, kShutDown);
  if (!locked) (void)files_.front()->lock(ImageClaim::reading(), kShutDown);
  return locked;
}

Result<Disk> Chain::snapshot(std::string_view id_or_name) const {
  if (!top_)
    return fail(Error::invalid(
        fmt::format("{}: a raw file has no snapshot '{}'", storage_->name(), id_or_name)));
  const Snapshot* found = find_snapshot(top_->snapshots(), id_or_name);
  if (!found)
    return fail(
        Error::invalid(fmt::format("{}: there is no snapshot '{}'", storage_->name(), id_or_name)));
  auto layers = layers_;
  if (losses_) {
    const auto index = static_cast<uint32_t>(found - top_->snapshots().data());
    ASSIGN_OR_RETURN(layers.front(),
                     Qcow2SalvageLayer::open(top_, found->l1_table, found->l1_entries,
                                             found->disk_size, index, losses_));
    return Disk(std::move(layers));
  }
  return snapshot(*found);
}

Result<Disk> Chain::snapshot(const Snapshot& snapshot) const {
  auto layers = layers_;
  ASSIGN_OR_RETURN(layers.front(), open_snapshot_layer(top_, snapshot));
  return Disk(std::move(layers));
}

}  // namespace vc::qcow2
