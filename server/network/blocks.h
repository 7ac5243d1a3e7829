// Layers under a common name, and the same layers several times, as the flat list of a network.
#ifndef RELIGHT_SERVER_NETWORK_BLOCKS_H_
#define RELIGHT_SERVER_NETWORK_BLOCKS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "server/network/network.h"
#include "server/network/tensor_spec.h"

namespace relight::network {

struct BlockEntry;

// The names of its layers have its own and a dot before them. What it is fed they call "input" (and
// "input:1", ...); what its last layer gives is its output.
struct Block {
  std::string name = {};
  std::vector<std::string> inputs = {};
  std::vector<BlockEntry> entries;  // Without "= {}", for which Clang wants the type complete.
  // So many times, each time fed what the one before gave, under "NAME.0", "NAME.1", ...; absent:
  // once, under its own name.
  std::optional<std::int64_t> repeat = std::nullopt;
  std::int64_t first = 0;  // The first number.
  int line = 0;
};

struct BlockEntry {
  std::variant<Layer, Block> what;
};

// However few lines of text they come from, these bound what layers take.
inline constexpr std::size_t kMaxLayers = 100'000;
inline constexpr std::size_t kMaxExpandedBytes = std::size_t{64} << 20;
inline constexpr std::size_t kMaxBlockDepth = 32;

// The layers of a network whose entries these are and whose first input has this name, in the order
// in which they run, with whole names of their own and of what they are fed. Names that mean
// nothing here are left for Network::Build to refuse. INVALID_ARGUMENT, all errors at once as
// Network::Build has them, for blocks that hold nothing, for more than kMaxLayers layers, and for
// names, inputs and lists of sizes that take more than kMaxExpandedBytes.
absl::StatusOr<std::vector<Layer>> ExpandBlocks(const std::vector<BlockEntry>& entries,
                                                const std::string& first_input);

// A network as one writes it down.
struct WrittenNetwork {
  std::vector<TensorSpec> inputs;   // Empty ones are as NetworkDescription has them.
  std::vector<TensorSpec> outputs;  // A family's have names alone.
  std::vector<BlockEntry> entries;
  // Regular expressions for keys that some releases of a family's home save beside the parameters.
  std::vector<std::string> ignored_keys = {};
};

// Its blocks expanded, and built; errors of both.
absl::StatusOr<Network> Build(const WrittenNetwork& written);

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_BLOCKS_H_
