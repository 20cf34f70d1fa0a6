#include "libvirt/disk_chain.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/xml_text.h"

namespace vc::libvirt {

namespace {

class ChainReader final : public XmlScanner::Handler {
 public:
  ChainReader(std::string_view text, std::vector<DiskChain>& disks) : text_(text), disks_(disks) {}

  Result<void> start(const XmlTag& tag) override {
    names_.emplace_back(slice(tag.name));
    if (names_.size() < 3 || names_[0] != "domain" || names_[1] != "devices" || names_[2] != "disk")
      return {};
    if (names_.size() == 3) {
      disks_.emplace_back();
      disks_.back().type = value_of(tag, "type");
      if (std::string device = value_of(tag, "device"); !device.empty())
        disks_.back().device = std::move(device);
      ends_ = 0;
    } else {
      add(disks_.back(), tag);
    }
    return {};
  }

  Result<void> end() override {
    names_.pop_back();
    return {};
  }

 private:
  std::string_view slice(Stretch it) const { return text_.substr(it.begin, it.end - it.begin); }

  std::string value_of(const XmlTag& tag, std::string_view name) const {
    return attribute_value(text_, tag, name);
  }

  void add(DiskChain& disk, const XmlTag& tag) {
    const std::string_view name = names_.back();
    // Number of <backingStore> elements around this one.
    size_t depth = 0;
    while (3 + depth + 1 < names_.size() && names_[3 + depth] == "backingStore") ++depth;
    const bool in_chain = names_.size() == 3 + depth + 1;
    if (name == "encryption") disk.encrypted = true;
    if (name == "dataStore" || name == "slices") disk.divided = true;
    if (in_chain && name == "backingStore") {
      add_backing(disk, tag, depth);
    } else if (in_chain && name == "source") {
      add_source(disk, tag, depth);
    } else if (in_chain && depth > 0 && name == "format") {
      file(disk, depth).format = value_of(tag, "type");
    } else if (in_chain && depth == 0) {
      add_property(disk, name, tag);
    } else if (names_.size() == 5 && names_[3] == "mirror" && name == "source" && disk.mirror) {
      disk.mirror->path = value_of(tag, "file");
    }
  }

  static DiskChain::File& file(DiskChain& disk, size_t depth) {
    if (disk.files.size() <= depth) disk.files.resize(depth + 1);
    return disk.files[depth];
  }

  void add_source(DiskChain& disk, const XmlTag& tag, size_t depth) {
    file(disk, depth).path = value_of(tag, "file");
    const XmlAttribute* const it = find_attribute(text_, tag, "file");
    if (depth == 0 && it) disk.source = it->value;
  }

  void add_backing(DiskChain& disk, const XmlTag& tag, size_t depth) {
    constexpr std::string_view kEnd = "</backingStore>";
    if (depth == 0) disk.backing = tag.whole;
    // An empty element ends the chain.
    if (tag.empty) return;
    file(disk, depth + 1);
    // The outermost element ends where as many have ended as have begun.
    if (ends_ == 0) from_ = tag.whole.end;
    ++ends_;
    const size_t at = text_.find(kEnd, from_);
    if (at == std::string_view::npos) return;
    from_ = at + kEnd.size();
    disk.backing->end = from_;
  }

  void add_property(DiskChain& disk, std::string_view name, const XmlTag& tag) {
    if (name == "driver") {
      file(disk, 0).format = value_of(tag, "type");
    } else if (name == "target") {
      disk.target = value_of(tag, "dev");
    } else if (name == "readonly") {
      disk.read_only = true;
    } else if (name == "shareable") {
      disk.shareable = true;
    } else if (name == "transient") {
      disk.transient = true;
    } else if (name == "mirror") {
      disk.mirror = {value_of(tag, "file"), value_of(tag, "job"), value_of(tag, "ready") == "yes"};
    }
  }

  const std::string_view text_;
  std::vector<DiskChain>& disks_;
  std::vector<std::string> names_;
  size_t ends_ = 0;  // nonempty <backingStore> elements of this disk so far
  size_t from_ = 0;  // where the end of the next one is searched
};

}  // namespace

const std::string& DiskChain::top() const {
  static const std::string none;
  return files.empty() ? none : files.front().path;
}

Result<std::vector<DiskChain>> read_disk_chains(std::string_view text, const std::string& name) {
  std::vector<DiskChain> disks;
  XmlScanner scanner(text, name);
  ChainReader reader(text, disks);
  RETURN_IF_ERROR(scanner.scan(reader));
  return disks;
}

const DiskChain* find_target(const std::vector<DiskChain>& disks, std::string_view target) {
  const auto it = std::find_if(disks.begin(), disks.end(),
                               [&](const DiskChain& disk) { return disk.target == target; });
  return it == disks.end() ? nullptr : &*it;
}

Result<std::string> with_source(const std::string& text, const std::string& name,
                                const std::string& target, const std::string& path) {
  ASSIGN_OR_RETURN(const auto disks, read_disk_chains(text, name));
  const DiskChain* const disk = find_target(disks, target);
  if (!disk || !disk->source)
    return fail(Error::invalid(fmt::format("{}: has no disk '{}' in a file", name, target)));
  std::string changed = text;
  const auto replace = [&](Stretch it, const std::string& by) {
    changed.replace(it.begin, it.end - it.begin, by);
  };
  // The later one first, so that the position of the other one stays.
  if (disk->backing && disk->backing->begin > disk->source->begin) replace(*disk->backing, "");
  replace(*disk->source, escape_xml(path));
  if (disk->backing && disk->backing->begin < disk->source->begin) replace(*disk->backing, "");
  return changed;
}

}  // namespace vc::libvirt
