// The disks of a libvirt domain definition, and their positions in its text.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libvirt/xml_scanner.h"

namespace vc::libvirt {

// The <driver> element of a disk.
struct DiskDriver {
  XmlTag tag;
  // Decoded, in the order of tag.attributes.
  std::vector<std::string> names;
  std::vector<std::string> values;

  // Returns nullptr if there is no such attribute.
  const std::string* find(std::string_view name) const;
};

struct DomainDisk {
  size_t line = 0;              // of "<disk"
  std::string type;             // "file", "block", "network", "volume" …
  std::string device = "disk";  // "cdrom", "floppy", "lun"
  std::string source;           // a path, a device, or a name; empty: none
  // Paths of files and devices: the source, and what the definition of a running domain lists as
  // its backing files or copy targets.
  std::vector<std::string> files;
  std::string target;      // "vda"
  std::string bus;         // "virtio"; empty: not set
  std::string controller;  // number of the controller in its address; empty: not set
  bool read_only = false;
  std::vector<DiskDriver> drivers;  // one, in a valid definition
  std::vector<DiskDriver> blockio;  // the <blockio>, parsed in the same way; at most one
};

struct DomainController {
  std::string type;   // "scsi"
  std::string index;  // "0"; empty: not set
  std::string model;  // "virtio-scsi"; empty: not set
};

struct Domain {
  std::vector<DomainDisk> disks;
  std::vector<DomainController> controllers;
  std::string os;           // libosinfo's name of the guest's OS; empty: not set
  bool hyperv = false;      // has Hyper-V features, which only Windows uses
  bool local_time = false;  // its clock is set up as for Windows

  // Returns true if the guest is Windows: according to libosinfo's metadata, or without metadata,
  // according to the features and the clock.
  bool is_windows() const;
};

// Parses `text`. `name` is for messages.
Result<Domain> read_domain(std::string_view text, const std::string& name);

}  // namespace vc::libvirt
