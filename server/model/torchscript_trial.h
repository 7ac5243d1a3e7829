// Running a TorchScript archive at load, to see whether it may be served.
#ifndef RELIGHT_SERVER_MODEL_TORCHSCRIPT_TRIAL_H_
#define RELIGHT_SERVER_MODEL_TORCHSCRIPT_TRIAL_H_

#include <vector>

#include "absl/status/statusor.h"
#include "server/model/device.h"
#include "server/model/execution.h"
#include "server/model/torchscript_checks.h"
#include "server/model/torchscript_graph.h"

namespace relight::model {

struct TrialReport {
  bool writes_to_inputs = false;  // Give it copies.
};

// Runs `computation` a few times on the same made-up inputs. INVALID_ARGUMENT where it fails,
// returns something else each time, or changes its own parameters or buffers.
absl::StatusOr<TrialReport> TryArchive(Device& device, const Signature& signature,
                                       const TrialSizes& sizes,
                                       const std::vector<ParameterSlot>& slots,
                                       Computation computation);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_TORCHSCRIPT_TRIAL_H_
