// Drops files that a guest creates again when it boots.
#pragma once

#include <string>
#include <vector>

#include "appliance/appliance.h"
#include "appliance/survey.h"
#include "appliance/trim_options.h"
#include "appliance/trim_report.h"
#include "base/result.h"

namespace vc::appliance {

// Drops files of the filesystem that is mounted at "/". Removes Windows's page file, swap file and
// hibernation file, and its shadow copies, if requested. Overwrites Linux's swap files with zeros,
// except for their headers. The zeros become holes of the image, but not of the file: Linux accepts
// no swap file with holes.
Result<void> drop_files(const Appliance& appliance, const TrimOptions::Drop& drop,
                        const Space& space, std::vector<DroppedFile>& dropped);

// Returns the files with the shadow copies of the NTFS volume that is mounted at "/". Shadow copies
// read all other data from the volume's clusters, even from free ones.
Result<std::vector<std::string>> shadow_copies(const Appliance& appliance, const Space& space);

}  // namespace vc::appliance
