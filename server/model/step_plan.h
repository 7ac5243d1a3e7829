// Which steps of a net are computed otherwise than one by one as they are written: batch norms that
// a convolution's weights take in, layers whose weights are packed for oneDNN, and the runs of
// layers around these that stay in its layout.
#ifndef RELIGHT_SERVER_MODEL_STEP_PLAN_H_
#define RELIGHT_SERVER_MODEL_STEP_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "server/network/network.h"

namespace relight::model {

// How a step's value may lie in memory. Any single value may be row-major whatever the plan says:
// where a request has no rows, where one row is better computed otherwise, where oneDNN would lose
// a NaN.
enum class Layout {
  kRowMajor,
  // oneDNN's blocked layout, in which eager LibTorch computes large convolutions, too, but which it
  // leaves after each.
  kImages,
  // The same, with [rows, features] as an image of `rows` pixels: [1, features, 1, rows].
  kRows,
};

struct StepPlan {
  // Of a convolution: the step whose batch norm its weights take in.
  std::optional<std::size_t> norm_taken_in = std::nullopt;
  // Of a batch norm: a convolution has taken it in, and it passes on what it gets.
  bool taken_in = false;
  // Of the step's value. Convolutions and linear layers for which it is not kRowMajor keep a packed
  // copy of their weights; other steps compute in whatever layout they get.
  Layout layout = Layout::kRowMajor;
  // Of a convolution: its weights are kept with the channels innermost, which is how cuDNN computes
  // fastest. Values follow by themselves, in LibTorch's strides.
  bool channels_last = false;
};

// What is derived from weights takes memory beside them, and each swap makes it anew: a net with
// more weights than this in its convolutions, or in its linear layers, derives nothing from these.
struct PlanOptions {
  bool take_in_norms = false;
  bool pack = false;           // For oneDNN: on the CPU, in float32.
  bool channels_last = false;  // For cuDNN.
  std::uint64_t most_convolution_elements = std::uint64_t{64} << 20;  // 256 MiB of float32.
  std::uint64_t most_linear_elements = std::uint64_t{16} << 20;       // 64 MiB.
};

// A plan for each step. A batch norm is taken in where nothing else sees the convolution's output.
// Runs in oneDNN's layouts begin at convolutions of which LibTorch would compute a single row with
// oneDNN anyway, and at large linear layers, of which OpenBLAS would rearrange all weights at each
// call. They go on for as long as layers can keep the layout.
std::vector<StepPlan> PlanSteps(const network::Network& network, const PlanOptions& options);

// Of a value of the net; inputs are row-major.
Layout LayoutOf(const network::Network& network, const std::vector<StepPlan>& plan,
                std::size_t value);

// How many elements are derived from the weights.
std::uint64_t DerivedElements(const network::Network& network, const std::vector<StepPlan>& plan);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_STEP_PLAN_H_
