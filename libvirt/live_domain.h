// A domain whose disks are changed while it runs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libvirt/connection.h"
#include "libvirt/disk_chain.h"

namespace vc::libvirt {

// Errors name the domain.
class LiveDomain {
 public:
  // `uri`: libvirt connection URI; empty: libvirt's default, and then the libvirts of this machine
  // that run. `name`: a name or a UUID.
  static Result<LiveDomain> open(const std::string& uri, const std::string& name);
  // Opens the running domain that has the file `path` as the top of a disk. Also returns the target
  // of the disk. nullopt: no domain has it.
  static Result<std::optional<std::pair<LiveDomain, std::string>>> find(const std::string& uri,
                                                                        const std::string& path);

  const std::string& name() const { return name_; }  // "domain 'web' of qemu:///system"
  const std::string& uri() const { return uri_; }
  const std::string& uuid() const { return uuid_; }

  // Returns an error if this libvirt or its QEMU is too old for the functions below.
  Result<void> check_versions() const;

  enum class Activity { kOff, kRuns, kPausedByUser, kPausedOtherwise };
  Result<Activity> activity() const;
  Result<bool> is_persistent() const;
  // The memory of the domain is saved, and relies on the content of its disks.
  bool has_saved_state() const;
  // A migration, a save or a dump is under way.
  Result<bool> has_job() const;
  Result<int> checkpoints() const;

  // Returns the disks. `next`: those of the next start.
  Result<std::vector<DiskChain>> disks(bool next) const;
  Result<DiskChain> disk(const std::string& target, bool next) const;

  // Trims the filesystems of the guest by its agent, free ranges from `minimum` bytes on. Returns
  // why the agent cannot do it; empty: it did.
  Result<std::string> trim(uint64_t minimum);

  Result<void> suspend();
  Result<void> resume();

  // Lets the guest write to overlays: pairs of a target and of the path of an image, which exists
  // and has the disk as its backing file.
  Result<void> snapshot(const std::vector<std::pair<std::string, std::string>>& overlays);
  // Starts to copy the top of the disk to the image `path`. The image must have the content of the
  // rest of the chain already.
  Result<void> start_copy(const std::string& target, const std::string& path);
  // Starts to write the content of the top into its backing file.
  Result<void> start_commit(const std::string& target);
  struct Job {
    uint64_t done = 0;  // bytes
    uint64_t total = 0;
  };
  // Returns nullopt if the disk has no job.
  Result<std::optional<Job>> job(const std::string& target) const;
  // The guest continues on the destination of the job. The definition of the next start follows.
  Result<void> pivot(const std::string& target);
  // Ends the job. The guest stays on its disk.
  Result<void> abort(const std::string& target);

  // Changes the source of a disk in the definition of the next start.
  Result<void> set_source(const std::string& target, const std::string& path);

  // Requests of the guest since its start.
  struct Requests {
    uint64_t writes = 0;
    uint64_t write_nanoseconds = 0;
    uint64_t flushes = 0;
    uint64_t flush_nanoseconds = 0;
  };
  Result<Requests> requests(const std::string& target) const;

 private:
  static Result<LiveDomain> open_at(const std::string& uri, const std::string& name);
  static Result<std::optional<std::pair<LiveDomain, std::string>>> find_at(const std::string& uri,
                                                                           const std::string& path);
  Result<void> identify(const std::string& uri);
  Result<std::string> definition(unsigned flags) const;

  Connection connection_;
  DomainHandle domain_;
  std::string name_;
  std::string uri_;
  std::string uuid_;
};

}  // namespace vc::libvirt
