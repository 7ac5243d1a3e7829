// Which step may follow which in the life of a version. status.h says what the states mean.
#ifndef RELIGHT_SERVER_SERVING_VERSION_STATE_H_
#define RELIGHT_SERVER_SERVING_VERSION_STATE_H_

#include "server/serving/status.h"

namespace relight::serving {

// Whether a candidate that was seen in state `from` may be seen in state `to` next. Staying is
// always allowed, and any state may be followed by kFound or kPassedOver: the file was replaced by
// another, or the rule that versions come from changed.
bool MayFollow(VersionState from, VersionState to);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_VERSION_STATE_H_
