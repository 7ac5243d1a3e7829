// What is done for a version after it was swapped in, so that neither load time nor memory pays for
// it: setting the training state aside, and the SHA-256 of the file.
#ifndef RELIGHT_SERVER_SERVING_AFTERCARE_H_
#define RELIGHT_SERVER_SERVING_AFTERCARE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/config/model_config.h"
#include "server/serving/version_record.h"
#include "storage/checkpoint.h"

namespace relight::serving {

// Whether the checkpoint held anything beside the weights.
bool HoldsMoreThanWeights(const VersionRecord& record);

// Whether the block alone is enough to write the weights out again. So it is but for odd files: a
// weight that was a slice of a much larger storage, say.
bool WeightsNeedNothingElse(const VersionRecord& record);

// Sets the aftermath of `record`: the training state first, because a trainer may soon write over
// the file. `source` is the checkpoint that it was loaded from, `pace` is called every few MiB and
// ends the work with a status other than OK.
void TakeCareOf(VersionRecord& record, std::shared_ptr<const storage::Checkpoint> source,
                config::TrainingState how, const std::string& spool_folder,
                const std::function<absl::Status()>& pace);

// SHA-256, in hex, of the file that `checkpoint` has open; fails where it has changed.
absl::StatusOr<std::string> Sha256OfSource(const storage::Checkpoint& checkpoint,
                                           const std::function<absl::Status()>& pace);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_AFTERCARE_H_
