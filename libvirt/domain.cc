#include "libvirt/domain.h"

#include <fmt/format.h>

#include <algorithm>

namespace vc::libvirt {

const std::string* DiskDriver::find(std::string_view name) const {
  const auto it = std::find(names.begin(), names.end(), name);
  return it == names.end() ? nullptr : &values[static_cast<size_t>(it - names.begin())];
}

bool Domain::is_windows() const {
  if (!os.empty()) return os.starts_with("http://microsoft.com/win");
  return hyperv || local_time;
}

namespace {

// The position of the reader: elements inside of other elements are ignored.
enum class Place {
  kOutside,
  kDomain,
  kMetadata,
  kFeatures,
  kClock,
  kDevices,
  kDisk,
  kDiskLayer,
  kOther
};

class Reader final : public XmlScanner::Handler {
 public:
  Reader(std::string_view text, XmlScanner& scanner, Domain& domain)
      : text_(text), scanner_(scanner), domain_(domain) {}

  Result<void> start(const XmlTag& tag) override {
    const std::string_view name = slice(tag.name);
    const Place above = places_.empty() ? Place::kOutside : places_.back();
    Place place = Place::kOther;
    if (above == Place::kOutside) {
      if (name != "domain" || !value_of(tag, "xmlns").empty())
        return scanner_.error(
            tag.whole.begin,
            fmt::format("<{}> is not a libvirt domain: a domain begins with <domain>", name));
      place = Place::kDomain;
    } else if (above == Place::kMetadata) {
      place = Place::kMetadata;
      // Elements of other programs, with their own prefixes.
      if (name.substr(name.find(':') + 1) == "os" && domain_.os.empty())
        domain_.os = value_of(tag, "id");
    } else if (!value_of(tag, "xmlns").empty()) {
      // An element of another namespace, ignored whatever its name.
    } else if (above == Place::kDomain && name == "metadata") {
      place = Place::kMetadata;
    } else if (above == Place::kDomain && name == "features") {
      place = Place::kFeatures;
    } else if (above == Place::kFeatures && name == "hyperv") {
      domain_.hyperv = true;
    } else if (above == Place::kDomain && name == "clock") {
      place = Place::kClock;
      domain_.local_time = value_of(tag, "offset") == "localtime";
    } else if (above == Place::kClock && name == "timer") {
      if (value_of(tag, "name") == "hypervclock" && value_of(tag, "present") != "no")
        domain_.hyperv = true;
    } else if (above == Place::kDomain && name == "devices") {
      place = Place::kDevices;
    } else if (above == Place::kDevices && name == "disk") {
      place = Place::kDisk;
      start_disk(tag);
    } else if (above == Place::kDevices && name == "controller") {
      domain_.controllers.push_back(
          {value_of(tag, "type"), value_of(tag, "index"), value_of(tag, "model")});
    } else if (above == Place::kDisk || above == Place::kDiskLayer) {
      if (name == "source") add_files(tag);
      if (above == Place::kDisk) part_of_disk(name, tag);
      if (has_own_source(above, name)) place = Place::kDiskLayer;
    }
    places_.push_back(place);
    return {};
  }

  Result<void> end() override {
    places_.pop_back();
    return {};
  }

 private:
  std::string_view slice(Stretch it) const { return text_.substr(it.begin, it.end - it.begin); }

  std::string value_of(const XmlTag& tag, std::string_view name) const {
    return attribute_value(text_, tag, name);
  }

  // Counts each line once, however many disks there are.
  size_t line_of(size_t at) {
    line_ += static_cast<size_t>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(counted_),
                                            text_.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
    counted_ = at;
    return line_;
  }

  void start_disk(const XmlTag& tag) {
    DomainDisk disk;
    disk.line = line_of(tag.whole.begin);
    disk.type = value_of(tag, "type");
    const std::string device = value_of(tag, "device");
    if (!device.empty()) disk.device = device;
    domain_.disks.push_back(std::move(disk));
  }

  // Returns true for elements that have a <source> of their own. The element with a data file is
  // inside a <source>.
  static bool has_own_source(Place above, std::string_view name) {
    return name == "backingStore" || name == "dataStore" || name == "source" ||
           (above == Place::kDisk && name == "mirror");
  }

  void add_files(const XmlTag& tag) {
    for (const char* key : {"file", "dev"})
      if (std::string path = value_of(tag, key); !path.empty())
        domain_.disks.back().files.push_back(std::move(path));
  }

  void part_of_disk(std::string_view name, const XmlTag& tag) {
    DomainDisk& disk = domain_.disks.back();
    if (name == "driver" || name == "blockio") {
      DiskDriver driver;
      driver.tag = tag;
      for (const XmlAttribute& it : tag.attributes) {
        driver.names.emplace_back(slice(it.name));
        driver.values.push_back(decode_value(slice(it.value)));
      }
      (name == "driver" ? disk.drivers : disk.blockio).push_back(std::move(driver));
    } else if (name == "source") {
      for (const char* key : {"file", "dev", "name", "volume", "dir", "path"})
        if (disk.source.empty()) disk.source = value_of(tag, key);
    } else if (name == "target") {
      disk.target = value_of(tag, "dev");
      disk.bus = value_of(tag, "bus");
    } else if (name == "address") {
      if (value_of(tag, "type") == "drive") disk.controller = value_of(tag, "controller");
    } else if (name == "readonly") {
      disk.read_only = true;
    }
  }

  const std::string_view text_;
  XmlScanner& scanner_;
  Domain& domain_;
  std::vector<Place> places_;
  size_t line_ = 1;
  size_t counted_ = 0;
};

}  // namespace

Result<Domain> read_domain(std::string_view text, const std::string& name) {
  Domain domain;
  XmlScanner scanner(text, name);
  Reader reader(text, scanner, domain);
  RETURN_IF_ERROR(scanner.scan(reader));
  return domain;
}

}  // namespace vc::libvirt
