// The disks of a libvirt domain definition, and where they stand in its text.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libvirt/xml_scanner.h"

namespace tune {

// A <driver> of a disk.
struct DiskDriver {
  XmlTag tag;
  // By the order of tag.attributes, decoded.
  std::vector<std::string> names;
  std::vector<std::string> values;

  // nullptr: it has no such attribute.
  const std::string* find(std::string_view name) const;
};

struct DomainDisk {
  size_t line = 0;              // of "<disk"
  std::string type;             // "file", "block", "network", "volume" …
  std::string device = "disk";  // "cdrom", "floppy", "lun"
  std::string source;           // a path, a device, or a name; empty: none
  // Paths of files and devices: of the source, and of what a running domain is said to have behind
  // it or to copy it to.
  std::vector<std::string> files;
  std::string target;      // "vda"
  std::string bus;         // "virtio"; empty: not said
  std::string controller;  // the number of the one that its address names; empty: not said
  bool read_only = false;
  std::vector<DiskDriver> drivers;  // one, unless somebody made a mistake
  std::vector<DiskDriver> blockio;  // the <blockio>, taken apart in the same way; at most one
};

struct DomainController {
  std::string type;   // "scsi"
  std::string index;  // "0"; empty: not said
  std::string model;  // "virtio-scsi"; empty: not said
};

struct Domain {
  std::vector<DomainDisk> disks;
  std::vector<DomainController> controllers;
  std::string os;           // libosinfo's name of what runs there; empty: not said
  bool hyperv = false;      // it is given what only Windows makes use of
  bool local_time = false;  // its clock is as Windows wants it

  // Whether Windows runs there: as libosinfo's metadata says, and if there is none, as the features
  // and the clock do.
  bool is_windows() const;
};

// `name` is what to call the text in messages.
qcow2::Result<Domain> read_domain(std::string_view text, const std::string& name);

}  // namespace tune
