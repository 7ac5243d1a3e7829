// What the families are made with: how entries are put down, and an Expand of each.
#ifndef RELIGHT_SERVER_NETWORK_FAMILIES_EXPANSION_H_
#define RELIGHT_SERVER_NETWORK_FAMILIES_EXPANSION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/network/families/families.h"

namespace relight::network {

// No family has nearly as many layers of its own; what they expand to can still be written down.
inline constexpr std::int64_t kMostFamilyLayers = 512;

// The least bfloat16. What hides a position: like the least float32, nothing is left of a score
// that it is added to, and it stays finite in either type.
inline constexpr double kHidden = -3.3895313892515355e38;

using Entries = std::vector<BlockEntry>;

BlockEntry Put(std::string name, LayerKind kind, std::vector<std::string> inputs = {},
               std::string parameters_of = {});
BlockEntry PutBlock(std::string name, Entries entries, std::vector<std::string> inputs = {});
// Nothing where `count` is 0.
void AddRepeated(const std::string& name, const Entries& entries, std::int64_t count,
                 std::int64_t first, Entries& to);
void Append(Entries more, Entries& to);

// A convolution without bias over `kernel` pixels in each direction, padded so that a stride of 1
// keeps the size.
Conv SquareConv(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride = 1,
                std::int64_t groups = 1);

// By the name that transformers/activations.py has for it; one of ActivationNames().
LayerKind ActivationNamed(const std::string& name);
std::vector<std::string> ActivationNames();

// [N, L, E] as [N, heads, L, E / heads], under `name`; and back.
Entries SplitHeads(const std::string& name, const std::string& input, std::int64_t heads,
                   std::int64_t width);
Entries MergeHeads();

// What is added to scores of shape [N, heads, L, L] for a mask [N, L] of ones and, where a position
// is hidden, zeros: the input of that name.
Entries PaddingMask(const std::string& name, const std::string& input);

// One input of a family.
struct FamilyInput {
  TensorSpec spec;
  bool optional = false;  // A client may do without it.
};

// One expansion: what the families read and fill in.
struct Expansion {
  WrittenNetwork network;           // Its inputs are chosen already.
  std::vector<std::string> errors;  // What is wrong with the hyperparameters.

  bool Takes(const std::string& input) const;
};

// REQUIRES of all: each argument is what ArgumentsOf allows.
std::vector<FamilyInput> InputsOf(const ResNet& family);
std::vector<FamilyInput> InputsOf(const Vgg& family);
std::vector<FamilyInput> InputsOf(const MobileNetV2& family);
std::vector<FamilyInput> InputsOf(const VisionTransformer& family);
std::vector<FamilyInput> InputsOf(const Bert& family);
std::vector<FamilyInput> InputsOf(const Gpt2& family);
void ExpandInto(const ResNet& family, Expansion& out);
void ExpandInto(const Vgg& family, Expansion& out);
void ExpandInto(const MobileNetV2& family, Expansion& out);
void ExpandInto(const VisionTransformer& family, Expansion& out);
void ExpandInto(const Bert& family, Expansion& out);
void ExpandInto(const Gpt2& family, Expansion& out);

// "input": [-1, channels, height, width].
std::vector<FamilyInput> ImageInput(std::int64_t channels, std::int64_t size = -1);
// INT64 [-1, -1].
FamilyInput TokenInput(std::string name, bool optional);

// "ARGUMENT is 20, it can be 18, 34 or 50", or that it is missing.
std::string NotAmong(const char* argument, std::int64_t value,
                     const std::vector<std::int64_t>& choices);
// Adds an error where `divisor` does not divide `value`.
void CheckDivides(const char* argument, std::int64_t value, const char* divisor_argument,
                  std::int64_t divisor, std::vector<std::string>& errors);

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_FAMILIES_EXPANSION_H_
