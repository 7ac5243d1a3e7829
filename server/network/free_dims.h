// What can stand for the free dimensions of a net that is run once before anybody asks it.
#ifndef RELIGHT_SERVER_NETWORK_FREE_DIMS_H_
#define RELIGHT_SERVER_NETWORK_FREE_DIMS_H_

#include <cstdint>
#include <optional>

#include "server/network/network.h"

namespace relight::network {

// The least power of two, up to 1024, that every layer can compute with in place of each free
// dimension; 1 where none is. `rows` stands for the inputs' first dimension, where given.
std::int64_t SmallestFreeDim(const Network& network, std::optional<std::int64_t> rows);

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_FREE_DIMS_H_
