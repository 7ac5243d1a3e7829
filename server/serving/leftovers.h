// What a process that was killed while it wrote has left behind.
#ifndef RELIGHT_SERVER_SERVING_LEFTOVERS_H_
#define RELIGHT_SERVER_SERVING_LEFTOVERS_H_

#include <string>

#include "storage/atomic_file.h"

namespace relight::serving {

// Removes unfinished files of ours from `folder` that no living process writes. A folder that is
// empty text, missing or not ours to change is left as it is.
void RemoveLeftovers(const std::string& folder, storage::Reach reach);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_LEFTOVERS_H_
