// Files that a guest makes again when it boots.
#pragma once

#include <string>
#include <vector>

#include "appliance/appliance.h"
#include "appliance/survey.h"
#include "appliance/trim_options.h"
#include "appliance/trim_report.h"
#include "base/result.h"

namespace vc::appliance {

// Of the filesystem that is mounted at "/": removes Windows's page file, swap file and hibernation
// file, which it makes anew; and fills Linux's swap files with zeros, which become holes of the
// image but none of the file, since Linux takes no swap file with holes.  Their header stays.
//
// Windows's shadow copies are files, too.
Result<void> drop_files(const Appliance& appliance, const TrimOptions::Drop& drop,
                        const Space& space, std::vector<DroppedFile>& dropped);

// The files that keep the shadow copies of the NTFS that is mounted at "/", if there are any.  What
// they do not hold they read from its clusters, used or not by now.
Result<std::vector<std::string>> shadow_copies(const Appliance& appliance, const Space& space);

}  // namespace vc::appliance
