// What a checkpoint holds beside its weights: optimizers, schedules, numbers, objects.
#ifndef RELIGHT_CLIENT_CTL_HELD_VALUES_H_
#define RELIGHT_CLIENT_CTL_HELD_VALUES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "storage/checkpoint.h"
#include "storage/optimizer_view.h"
#include "storage/state_dict.h"
#include "storage/tree.h"

namespace relight::ctl {

enum class HeldKind {
  kValue,      // None, a number, a string, a list, ...
  kOptimizer,  // `optimizer` has more.
  kSchedule,   // Of the learning rate.
  kScaler,     // Of gradients, in mixed precision.
  kStateDict,
  kModule,  // A whole module, pickled.
  kTensor,
  kObject,  // Of a class without a meaning here.
};
std::string_view Name(HeldKind kind);

struct HeldValue {
  std::string at;  // JSON pointer, any bytes: "/optimizer_state_dict".
  storage::NodeId node = storage::kNoNode;
  HeldKind kind = HeldKind::kValue;
  std::string guess;  // Of schedules: "StepLR"; may be empty.
  std::optional<storage::OptimizerView> optimizer;
  // What only this value refers to: neither the weights nor a value before it.
  std::uint64_t tensors = 0;
  std::uint64_t stored_bytes = 0;
};

struct HeldTensor {
  std::string at;
  storage::NodeId node = storage::kNoNode;  // kTensor or kUnsupportedTensor.
};

struct HeldValues {
  std::vector<HeldValue> values;
  std::size_t omitted_values = 0;   // Beyond `max_listed`.
  std::vector<HeldTensor> tensors;  // Of all values.
  std::size_t omitted_tensors = 0;
  std::uint64_t weight_bytes = 0;  // Of the storages that the weights refer to.
};

// `weights` is null where the checkpoint has none. Lists at most `max_listed` values and as many
// tensors, and takes time linear in the checkpoint.
HeldValues FindHeldValues(const storage::Checkpoint& checkpoint, const storage::StateDict* weights,
                          std::size_t max_listed);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_HELD_VALUES_H_
