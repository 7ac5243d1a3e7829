// Output sizes of convolutions and pools, against what PyTorch 1.13 gave for random arguments.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/network/layer_rules.h"
#include "server/network/tensor_spec.h"

namespace relight::network {
namespace {

using Pair = std::array<std::int64_t, 2>;

struct Window {
  enum Kind { kConv, kMax, kAvg } kind;
  Pair input;
  Pair kernel;
  Pair stride;
  Pair padding;
  Pair dilation;
  bool ceil_mode;
  Pair output;  // 0, 0 where PyTorch refused.
};

constexpr Window kTable[] = {
    {Window::kConv, {1, 9}, {3, 2}, {4, 1}, {0, 0}, {2, 3}, false, {0, 0}},
    {Window::kConv, {9, 7}, {2, 1}, {1, 4}, {3, 0}, {1, 1}, false, {14, 2}},
    {Window::kConv, {1, 9}, {1, 5}, {1, 2}, {0, 3}, {1, 1}, false, {1, 6}},
    {Window::kConv, {3, 2}, {2, 3}, {4, 2}, {0, 2}, {3, 3}, false, {0, 0}},
    {Window::kConv, {10, 4}, {5, 5}, {2, 3}, {0, 0}, {3, 1}, false, {0, 0}},
    {Window::kConv, {4, 13}, {4, 5}, {4, 3}, {3, 3}, {2, 2}, false, {1, 4}},
    {Window::kConv, {5, 10}, {2, 2}, {1, 3}, {3, 2}, {3, 2}, false, {8, 4}},
    {Window::kConv, {1, 11}, {1, 1}, {4, 2}, {2, 1}, {2, 2}, false, {2, 7}},
    {Window::kConv, {2, 14}, {1, 5}, {3, 3}, {2, 3}, {3, 2}, false, {2, 4}},
    {Window::kConv, {11, 14}, {1, 3}, {4, 1}, {0, 2}, {3, 3}, false, {3, 12}},
    {Window::kConv, {10, 2}, {4, 3}, {4, 3}, {0, 3}, {2, 1}, false, {1, 2}},
    {Window::kConv, {14, 8}, {4, 1}, {2, 3}, {1, 1}, {2, 2}, false, {5, 4}},
    {Window::kConv, {5, 12}, {1, 2}, {4, 4}, {2, 1}, {2, 3}, false, {3, 3}},
    {Window::kConv, {4, 11}, {4, 3}, {4, 2}, {1, 0}, {1, 1}, false, {1, 5}},
    {Window::kConv, {7, 9}, {2, 1}, {4, 2}, {2, 2}, {1, 1}, false, {3, 7}},
    {Window::kConv, {7, 7}, {3, 5}, {3, 2}, {0, 3}, {3, 3}, false, {1, 1}},
    {Window::kConv, {4, 8}, {4, 4}, {1, 4}, {3, 0}, {1, 1}, false, {7, 2}},
    {Window::kConv, {9, 2}, {2, 1}, {3, 1}, {0, 0}, {3, 1}, false, {2, 2}},
    {Window::kConv, {5, 6}, {3, 5}, {1, 1}, {1, 3}, {1, 3}, false, {0, 0}},
    {Window::kConv, {8, 5}, {5, 3}, {4, 1}, {0, 3}, {2, 2}, false, {0, 0}},
    {Window::kConv, {9, 1}, {1, 2}, {1, 3}, {2, 3}, {3, 1}, false, {13, 2}},
    {Window::kConv, {12, 14}, {2, 5}, {3, 2}, {0, 2}, {3, 1}, false, {3, 7}},
    {Window::kConv, {13, 9}, {3, 5}, {3, 2}, {2, 1}, {3, 3}, false, {0, 0}},
    {Window::kConv, {8, 6}, {3, 2}, {2, 2}, {3, 1}, {1, 3}, false, {6, 3}},
    {Window::kConv, {6, 8}, {1, 1}, {3, 4}, {2, 1}, {3, 3}, false, {4, 3}},
    {Window::kConv, {6, 4}, {3, 3}, {1, 2}, {0, 1}, {2, 1}, false, {2, 2}},
    {Window::kConv, {7, 13}, {4, 5}, {1, 4}, {2, 0}, {3, 1}, false, {2, 3}},
    {Window::kConv, {8, 7}, {2, 4}, {2, 4}, {2, 0}, {3, 2}, false, {5, 1}},
    {Window::kConv, {13, 11}, {1, 2}, {2, 2}, {0, 1}, {3, 2}, false, {7, 6}},
    {Window::kConv, {13, 12}, {2, 5}, {4, 3}, {1, 1}, {1, 1}, false, {4, 4}},
    {Window::kConv, {4, 5}, {1, 5}, {2, 4}, {1, 1}, {1, 2}, false, {0, 0}},
    {Window::kConv, {6, 8}, {5, 2}, {3, 3}, {3, 1}, {1, 3}, false, {3, 3}},
    {Window::kConv, {10, 1}, {5, 5}, {4, 2}, {1, 0}, {2, 1}, false, {0, 0}},
    {Window::kConv, {9, 9}, {2, 2}, {2, 4}, {0, 0}, {2, 3}, false, {4, 2}},
    {Window::kConv, {13, 2}, {5, 4}, {1, 1}, {1, 1}, {2, 1}, false, {7, 1}},
    {Window::kConv, {10, 9}, {5, 4}, {1, 1}, {3, 2}, {3, 3}, false, {4, 4}},
    {Window::kConv, {14, 8}, {2, 3}, {4, 4}, {1, 2}, {3, 1}, false, {4, 3}},
    {Window::kConv, {4, 7}, {2, 4}, {1, 4}, {3, 2}, {1, 3}, false, {9, 1}},
    {Window::kConv, {3, 8}, {1, 2}, {3, 1}, {1, 2}, {1, 2}, false, {2, 10}},
    {Window::kConv, {7, 9}, {2, 1}, {4, 4}, {1, 1}, {1, 3}, false, {2, 3}},
    {Window::kConv, {6, 1}, {4, 3}, {4, 2}, {2, 2}, {1, 3}, false, {0, 0}},
    {Window::kConv, {10, 5}, {3, 5}, {4, 4}, {0, 3}, {2, 3}, false, {0, 0}},
    {Window::kConv, {1, 13}, {5, 1}, {1, 2}, {0, 0}, {2, 2}, false, {0, 0}},
    {Window::kConv, {9, 10}, {2, 3}, {2, 4}, {2, 3}, {1, 3}, false, {6, 3}},
    {Window::kConv, {5, 1}, {4, 3}, {1, 3}, {0, 1}, {2, 1}, false, {0, 0}},
    {Window::kConv, {1, 6}, {1, 3}, {1, 2}, {0, 2}, {1, 2}, false, {1, 3}},
    {Window::kConv, {5, 1}, {5, 4}, {3, 2}, {0, 1}, {1, 1}, false, {0, 0}},
    {Window::kConv, {11, 3}, {2, 2}, {3, 3}, {1, 2}, {2, 3}, false, {4, 2}},
    {Window::kConv, {9, 9}, {3, 3}, {1, 3}, {0, 0}, {1, 3}, false, {7, 1}},
    {Window::kConv, {7, 11}, {2, 5}, {4, 2}, {3, 0}, {3, 3}, false, {0, 0}},
    {Window::kConv, {14, 12}, {4, 5}, {4, 3}, {1, 1}, {2, 1}, false, {3, 4}},
    {Window::kConv, {12, 5}, {2, 4}, {3, 1}, {1, 0}, {1, 3}, false, {0, 0}},
    {Window::kConv, {12, 5}, {4, 2}, {1, 1}, {3, 2}, {3, 1}, false, {9, 8}},
    {Window::kConv, {6, 6}, {1, 4}, {2, 2}, {2, 3}, {1, 2}, false, {5, 3}},
    {Window::kConv, {1, 6}, {5, 3}, {2, 1}, {2, 1}, {2, 1}, false, {0, 0}},
    {Window::kConv, {2, 5}, {4, 1}, {4, 3}, {1, 1}, {3, 1}, false, {0, 0}},
    {Window::kConv, {11, 4}, {1, 2}, {4, 1}, {3, 0}, {2, 2}, false, {5, 2}},
    {Window::kConv, {12, 10}, {1, 5}, {2, 4}, {2, 3}, {1, 2}, false, {8, 2}},
    {Window::kConv, {1, 3}, {2, 1}, {4, 2}, {0, 1}, {1, 1}, false, {0, 0}},
    {Window::kConv, {11, 4}, {3, 1}, {4, 4}, {0, 0}, {3, 3}, false, {2, 1}},
    {Window::kMax, {5, 13}, {4, 3}, {1, 4}, {0, 0}, {1, 2}, false, {2, 3}},
    {Window::kMax, {8, 11}, {3, 2}, {2, 2}, {1, 1}, {2, 1}, true, {4, 6}},
    {Window::kMax, {10, 10}, {1, 5}, {2, 1}, {0, 1}, {2, 2}, false, {5, 4}},
    {Window::kMax, {11, 8}, {1, 4}, {1, 4}, {0, 2}, {1, 1}, true, {11, 3}},
    {Window::kMax, {2, 8}, {5, 3}, {4, 4}, {1, 0}, {1, 2}, false, {0, 0}},
    {Window::kMax, {4, 2}, {3, 4}, {1, 5}, {1, 1}, {2, 1}, true, {2, 1}},
    {Window::kMax, {12, 6}, {1, 2}, {5, 3}, {0, 0}, {2, 1}, false, {3, 2}},
    {Window::kMax, {7, 5}, {4, 4}, {4, 1}, {0, 0}, {2, 2}, true, {0, 0}},
    {Window::kMax, {6, 13}, {2, 4}, {3, 4}, {1, 0}, {2, 1}, true, {3, 4}},
    {Window::kMax, {2, 7}, {4, 1}, {2, 1}, {2, 0}, {2, 2}, true, {1, 7}},
    {Window::kMax, {1, 14}, {5, 1}, {3, 4}, {1, 0}, {2, 1}, true, {0, 0}},
    {Window::kMax, {13, 7}, {3, 2}, {2, 3}, {1, 1}, {1, 2}, false, {7, 3}},
    {Window::kMax, {8, 10}, {4, 5}, {5, 2}, {2, 0}, {1, 2}, false, {2, 1}},
    {Window::kMax, {6, 5}, {3, 4}, {1, 5}, {0, 0}, {2, 2}, true, {2, 1}},
    {Window::kMax, {3, 11}, {3, 3}, {4, 2}, {1, 1}, {2, 1}, false, {1, 6}},
    {Window::kMax, {7, 3}, {1, 2}, {5, 4}, {0, 1}, {2, 2}, true, {2, 1}},
    {Window::kMax, {6, 5}, {2, 2}, {1, 2}, {1, 0}, {2, 1}, true, {6, 3}},
    {Window::kMax, {6, 13}, {2, 1}, {4, 4}, {1, 0}, {2, 2}, false, {2, 4}},
    {Window::kMax, {4, 7}, {4, 3}, {5, 3}, {0, 0}, {1, 2}, true, {1, 2}},
    {Window::kMax, {10, 8}, {4, 4}, {3, 1}, {0, 0}, {2, 2}, false, {2, 2}},
    {Window::kMax, {3, 3}, {1, 4}, {5, 4}, {0, 0}, {1, 1}, true, {1, 1}},
    {Window::kMax, {10, 1}, {1, 4}, {1, 5}, {0, 0}, {1, 1}, true, {10, 1}},
    {Window::kMax, {5, 9}, {3, 2}, {3, 5}, {1, 0}, {1, 1}, true, {2, 2}},
    {Window::kMax, {5, 6}, {2, 4}, {3, 2}, {0, 0}, {2, 2}, true, {2, 1}},
    {Window::kMax, {1, 1}, {2, 4}, {5, 2}, {0, 0}, {2, 2}, false, {0, 0}},
    {Window::kMax, {4, 8}, {4, 4}, {1, 3}, {0, 2}, {2, 2}, false, {0, 0}},
    {Window::kMax, {4, 8}, {3, 4}, {3, 4}, {0, 0}, {2, 1}, false, {0, 0}},
    {Window::kMax, {10, 8}, {3, 2}, {2, 4}, {0, 1}, {2, 1}, true, {4, 3}},
    {Window::kMax, {4, 1}, {2, 2}, {4, 4}, {0, 0}, {2, 1}, true, {1, 1}},
    {Window::kMax, {12, 2}, {2, 4}, {1, 1}, {0, 1}, {2, 2}, false, {0, 0}},
    {Window::kMax, {14, 6}, {2, 3}, {2, 2}, {1, 0}, {2, 2}, true, {8, 2}},
    {Window::kMax, {7, 2}, {4, 2}, {1, 1}, {0, 1}, {1, 2}, true, {4, 2}},
    {Window::kMax, {4, 6}, {2, 4}, {3, 3}, {1, 0}, {1, 2}, true, {2, 1}},
    {Window::kMax, {4, 13}, {4, 2}, {3, 3}, {2, 1}, {1, 2}, true, {2, 5}},
    {Window::kMax, {4, 12}, {4, 1}, {4, 1}, {1, 0}, {1, 2}, false, {1, 12}},
    {Window::kMax, {5, 5}, {5, 3}, {3, 3}, {1, 0}, {2, 2}, false, {0, 0}},
    {Window::kMax, {13, 5}, {5, 1}, {1, 2}, {0, 0}, {2, 2}, true, {5, 3}},
    {Window::kMax, {6, 14}, {4, 2}, {4, 2}, {0, 1}, {1, 1}, true, {2, 8}},
    {Window::kMax, {4, 7}, {4, 3}, {5, 1}, {2, 0}, {2, 1}, false, {1, 5}},
    {Window::kMax, {2, 5}, {1, 4}, {5, 5}, {0, 0}, {2, 1}, true, {1, 1}},
    {Window::kMax, {3, 7}, {1, 2}, {1, 4}, {0, 1}, {1, 1}, true, {3, 2}},
    {Window::kMax, {6, 5}, {5, 2}, {5, 1}, {1, 1}, {2, 2}, true, {1, 5}},
    {Window::kMax, {5, 10}, {3, 2}, {4, 2}, {0, 0}, {1, 1}, false, {1, 5}},
    {Window::kMax, {1, 2}, {3, 1}, {4, 3}, {0, 0}, {1, 2}, false, {0, 0}},
    {Window::kMax, {1, 4}, {4, 2}, {4, 3}, {0, 1}, {1, 1}, true, {1, 2}},
    {Window::kMax, {13, 13}, {5, 2}, {1, 3}, {2, 0}, {2, 2}, true, {9, 5}},
    {Window::kMax, {6, 3}, {1, 1}, {5, 5}, {0, 0}, {1, 2}, false, {2, 1}},
    {Window::kMax, {11, 6}, {2, 3}, {1, 5}, {0, 0}, {2, 2}, false, {9, 1}},
    {Window::kMax, {7, 2}, {5, 3}, {1, 2}, {0, 1}, {2, 1}, true, {0, 0}},
    {Window::kMax, {7, 5}, {5, 2}, {5, 1}, {2, 0}, {2, 2}, true, {2, 3}},
    {Window::kMax, {14, 13}, {3, 4}, {1, 3}, {1, 1}, {2, 1}, true, {12, 5}},
    {Window::kMax, {2, 14}, {2, 4}, {4, 2}, {0, 1}, {1, 2}, false, {1, 5}},
    {Window::kMax, {9, 3}, {4, 5}, {3, 4}, {0, 0}, {1, 1}, true, {3, 1}},
    {Window::kMax, {5, 3}, {4, 1}, {5, 5}, {1, 0}, {1, 2}, true, {2, 1}},
    {Window::kMax, {14, 1}, {2, 1}, {1, 4}, {1, 0}, {2, 1}, true, {14, 1}},
    {Window::kMax, {10, 14}, {3, 1}, {5, 4}, {0, 0}, {1, 2}, false, {2, 4}},
    {Window::kMax, {6, 2}, {4, 2}, {5, 2}, {0, 1}, {1, 2}, false, {1, 1}},
    {Window::kMax, {10, 8}, {2, 2}, {1, 5}, {0, 1}, {1, 2}, true, {9, 2}},
    {Window::kMax, {8, 9}, {3, 4}, {3, 5}, {0, 1}, {2, 2}, true, {2, 2}},
    {Window::kMax, {13, 10}, {2, 1}, {1, 5}, {1, 0}, {1, 2}, true, {14, 2}},
    {Window::kMax, {6, 2}, {2, 4}, {4, 1}, {0, 0}, {2, 2}, true, {0, 0}},
    {Window::kMax, {13, 12}, {5, 5}, {1, 1}, {2, 0}, {1, 2}, true, {13, 4}},
    {Window::kMax, {4, 3}, {1, 1}, {5, 4}, {0, 0}, {1, 1}, true, {1, 1}},
    {Window::kMax, {10, 5}, {3, 2}, {2, 1}, {1, 1}, {1, 2}, true, {6, 5}},
    {Window::kMax, {6, 1}, {2, 3}, {5, 4}, {0, 1}, {1, 2}, false, {0, 0}},
    {Window::kMax, {2, 13}, {2, 4}, {2, 3}, {1, 1}, {1, 2}, true, {2, 4}},
    {Window::kMax, {5, 7}, {1, 3}, {4, 5}, {0, 1}, {2, 2}, true, {2, 2}},
    {Window::kMax, {10, 12}, {5, 2}, {3, 3}, {0, 1}, {1, 1}, false, {2, 5}},
    {Window::kMax, {4, 3}, {3, 5}, {3, 3}, {1, 2}, {1, 1}, true, {2, 2}},
    {Window::kMax, {4, 10}, {5, 4}, {4, 5}, {1, 0}, {1, 2}, true, {2, 2}},
    {Window::kMax, {9, 4}, {1, 1}, {1, 1}, {0, 0}, {1, 2}, true, {9, 4}},
    {Window::kMax, {3, 1}, {5, 3}, {5, 2}, {0, 1}, {2, 1}, false, {0, 0}},
    {Window::kMax, {13, 5}, {2, 4}, {1, 1}, {0, 2}, {2, 2}, false, {11, 3}},
    {Window::kMax, {3, 1}, {1, 5}, {3, 5}, {0, 2}, {2, 1}, false, {1, 1}},
    {Window::kMax, {13, 2}, {1, 5}, {1, 4}, {0, 0}, {1, 1}, false, {0, 0}},
    {Window::kMax, {9, 5}, {5, 5}, {2, 2}, {1, 0}, {2, 1}, false, {2, 1}},
    {Window::kMax, {2, 12}, {3, 1}, {4, 5}, {0, 0}, {2, 2}, true, {1, 3}},
    {Window::kMax, {6, 12}, {4, 2}, {2, 1}, {1, 0}, {1, 1}, true, {3, 11}},
    {Window::kMax, {2, 9}, {3, 1}, {3, 5}, {1, 0}, {2, 1}, false, {0, 0}},
    {Window::kMax, {6, 10}, {2, 3}, {2, 2}, {0, 1}, {1, 2}, false, {3, 4}},
    {Window::kMax, {7, 12}, {4, 5}, {4, 4}, {2, 2}, {1, 1}, false, {2, 3}},
    {Window::kMax, {1, 1}, {5, 3}, {2, 4}, {2, 0}, {1, 1}, false, {0, 0}},
    {Window::kMax, {1, 3}, {1, 5}, {2, 3}, {0, 2}, {1, 1}, true, {1, 2}},
    {Window::kMax, {2, 4}, {1, 1}, {1, 1}, {0, 0}, {1, 2}, false, {2, 4}},
    {Window::kMax, {3, 2}, {2, 1}, {1, 1}, {0, 0}, {2, 1}, true, {1, 2}},
    {Window::kMax, {5, 5}, {2, 3}, {3, 3}, {1, 1}, {1, 2}, false, {2, 1}},
    {Window::kMax, {1, 7}, {3, 3}, {5, 5}, {1, 1}, {1, 2}, true, {1, 2}},
    {Window::kMax, {7, 1}, {1, 3}, {4, 1}, {0, 0}, {2, 1}, true, {0, 0}},
    {Window::kMax, {12, 13}, {2, 3}, {1, 1}, {1, 1}, {1, 2}, false, {13, 11}},
    {Window::kMax, {14, 4}, {4, 5}, {3, 5}, {1, 2}, {1, 2}, true, {5, 1}},
    {Window::kAvg, {13, 12}, {2, 4}, {2, 1}, {0, 1}, {1, 1}, true, {7, 11}},
    {Window::kAvg, {12, 2}, {1, 3}, {3, 1}, {0, 1}, {1, 1}, true, {4, 2}},
    {Window::kAvg, {9, 9}, {1, 3}, {2, 3}, {0, 1}, {1, 1}, false, {5, 3}},
    {Window::kAvg, {6, 10}, {4, 2}, {4, 2}, {2, 0}, {1, 1}, true, {2, 5}},
    {Window::kAvg, {3, 8}, {5, 2}, {4, 5}, {2, 1}, {1, 1}, true, {2, 2}},
    {Window::kAvg, {11, 12}, {3, 5}, {2, 2}, {1, 1}, {1, 1}, false, {6, 5}},
    {Window::kAvg, {12, 3}, {5, 2}, {3, 3}, {2, 0}, {1, 1}, false, {4, 1}},
    {Window::kAvg, {6, 4}, {3, 5}, {5, 3}, {0, 0}, {1, 1}, true, {2, 1}},
    {Window::kAvg, {3, 13}, {1, 2}, {1, 2}, {0, 0}, {1, 1}, true, {3, 7}},
    {Window::kAvg, {2, 5}, {3, 4}, {3, 2}, {0, 2}, {1, 1}, false, {0, 0}},
    {Window::kAvg, {12, 4}, {4, 4}, {1, 1}, {1, 1}, {1, 1}, true, {11, 3}},
    {Window::kAvg, {12, 7}, {3, 4}, {1, 2}, {1, 2}, {1, 1}, false, {12, 4}},
    {Window::kAvg, {11, 12}, {2, 4}, {5, 5}, {1, 0}, {1, 1}, true, {3, 3}},
    {Window::kAvg, {6, 5}, {5, 2}, {2, 1}, {1, 1}, {1, 1}, true, {3, 6}},
    {Window::kAvg, {14, 7}, {1, 4}, {2, 4}, {0, 1}, {1, 1}, true, {7, 2}},
    {Window::kAvg, {11, 6}, {4, 1}, {5, 4}, {2, 0}, {1, 1}, false, {3, 2}},
    {Window::kAvg, {4, 3}, {4, 4}, {1, 1}, {1, 2}, {1, 1}, true, {3, 4}},
    {Window::kAvg, {4, 12}, {2, 5}, {3, 1}, {1, 2}, {1, 1}, true, {2, 12}},
    {Window::kAvg, {12, 8}, {5, 1}, {3, 5}, {1, 0}, {1, 1}, false, {4, 2}},
    {Window::kAvg, {1, 5}, {2, 4}, {5, 1}, {1, 2}, {1, 1}, true, {1, 6}},
    {Window::kAvg, {7, 11}, {4, 4}, {1, 1}, {0, 1}, {1, 1}, true, {4, 10}},
    {Window::kAvg, {12, 7}, {3, 5}, {3, 1}, {0, 1}, {1, 1}, true, {4, 5}},
    {Window::kAvg, {13, 2}, {2, 4}, {4, 2}, {0, 0}, {1, 1}, true, {0, 0}},
    {Window::kAvg, {11, 11}, {2, 4}, {5, 2}, {0, 1}, {1, 1}, true, {3, 6}},
    {Window::kAvg, {13, 14}, {4, 3}, {5, 2}, {1, 1}, {1, 1}, false, {3, 7}},
    {Window::kAvg, {1, 13}, {3, 4}, {3, 4}, {0, 1}, {1, 1}, true, {1, 4}},
    {Window::kAvg, {8, 7}, {3, 3}, {2, 3}, {1, 1}, {1, 1}, true, {5, 3}},
    {Window::kAvg, {2, 14}, {1, 3}, {2, 3}, {0, 0}, {1, 1}, true, {1, 5}},
    {Window::kAvg, {4, 2}, {3, 2}, {5, 3}, {0, 0}, {1, 1}, true, {1, 1}},
    {Window::kAvg, {3, 13}, {3, 3}, {5, 1}, {0, 0}, {1, 1}, true, {1, 11}},
    {Window::kAvg, {11, 9}, {3, 2}, {2, 4}, {0, 0}, {1, 1}, true, {5, 3}},
    {Window::kAvg, {11, 2}, {3, 2}, {4, 2}, {0, 1}, {1, 1}, true, {3, 2}},
    {Window::kAvg, {8, 9}, {1, 3}, {4, 2}, {0, 1}, {1, 1}, false, {2, 5}},
    {Window::kAvg, {3, 9}, {4, 4}, {2, 4}, {0, 1}, {1, 1}, true, {1, 3}},
    {Window::kAvg, {14, 8}, {1, 2}, {3, 4}, {0, 1}, {1, 1}, true, {5, 3}},
    {Window::kAvg, {11, 11}, {4, 4}, {1, 2}, {2, 1}, {1, 1}, false, {12, 5}},
    {Window::kAvg, {8, 8}, {1, 5}, {1, 3}, {0, 2}, {1, 1}, false, {8, 3}},
    {Window::kAvg, {14, 11}, {1, 2}, {4, 2}, {0, 0}, {1, 1}, true, {4, 6}},
    {Window::kAvg, {7, 6}, {3, 4}, {5, 5}, {0, 1}, {1, 1}, true, {2, 2}},
    {Window::kAvg, {14, 8}, {3, 5}, {1, 3}, {1, 1}, {1, 1}, true, {14, 3}},
    {Window::kAvg, {11, 8}, {3, 5}, {3, 5}, {1, 0}, {1, 1}, false, {4, 1}},
    {Window::kAvg, {13, 1}, {3, 2}, {3, 3}, {0, 0}, {1, 1}, true, {5, 1}},
    {Window::kAvg, {5, 2}, {5, 4}, {5, 5}, {0, 1}, {1, 1}, false, {1, 1}},
    {Window::kAvg, {10, 3}, {1, 2}, {4, 5}, {0, 1}, {1, 1}, true, {3, 1}},
    {Window::kAvg, {11, 13}, {5, 1}, {2, 1}, {2, 0}, {1, 1}, false, {6, 13}},
    {Window::kAvg, {6, 14}, {1, 2}, {1, 4}, {0, 0}, {1, 1}, false, {6, 4}},
    {Window::kAvg, {1, 6}, {3, 5}, {3, 3}, {0, 1}, {1, 1}, false, {0, 0}},
    {Window::kAvg, {9, 1}, {4, 5}, {5, 1}, {1, 2}, {1, 1}, false, {2, 1}},
    {Window::kAvg, {11, 7}, {4, 5}, {4, 4}, {0, 0}, {1, 1}, true, {3, 2}},
    {Window::kAvg, {2, 11}, {5, 2}, {4, 4}, {2, 0}, {1, 1}, true, {1, 3}},
    {Window::kAvg, {11, 11}, {2, 2}, {1, 4}, {0, 0}, {1, 1}, false, {10, 3}},
    {Window::kAvg, {5, 12}, {1, 2}, {1, 2}, {0, 0}, {1, 1}, true, {5, 6}},
    {Window::kAvg, {12, 12}, {2, 4}, {2, 1}, {1, 2}, {1, 1}, false, {7, 13}},
    {Window::kAvg, {1, 12}, {1, 3}, {5, 4}, {0, 1}, {1, 1}, false, {1, 3}},
    {Window::kAvg, {5, 5}, {1, 1}, {1, 5}, {0, 0}, {1, 1}, true, {5, 1}},
    {Window::kAvg, {6, 10}, {5, 2}, {4, 5}, {0, 1}, {1, 1}, true, {2, 3}},
    {Window::kAvg, {11, 3}, {4, 4}, {2, 2}, {0, 1}, {1, 1}, true, {5, 2}},
    {Window::kAvg, {6, 5}, {4, 4}, {4, 4}, {1, 2}, {1, 1}, true, {2, 2}},
    {Window::kAvg, {10, 14}, {1, 5}, {5, 3}, {0, 0}, {1, 1}, true, {2, 4}},
    {Window::kAvg, {7, 10}, {5, 4}, {2, 4}, {1, 2}, {1, 1}, false, {3, 3}},
};

Sizes Both(const Pair& pair) { return {pair[0], pair[1]}; }

LayerKind Kind(const Window& row) {
  switch (row.kind) {
    case Window::kConv:
      return Conv{.in_channels = 4,
                  .out_channels = 4,
                  .kernel_size = Both(row.kernel),
                  .stride = Both(row.stride),
                  .padding = Both(row.padding),
                  .dilation = Both(row.dilation)};
    case Window::kMax:
      return MaxPool{.kernel_size = Both(row.kernel),
                     .stride = Both(row.stride),
                     .padding = Both(row.padding),
                     .dilation = Both(row.dilation),
                     .ceil_mode = row.ceil_mode};
    case Window::kAvg:
      return AvgPool{.kernel_size = Both(row.kernel),
                     .stride = Both(row.stride),
                     .padding = Both(row.padding),
                     .ceil_mode = row.ceil_mode};
  }
  return Identity{};
}

TEST(WindowsTest, SizesAreThoseOfPyTorch) {
  for (const Window& row : kTable) {
    LayerKind kind = Kind(row);
    const std::string row_text = absl::StrCat(
        KindName(kind), " input ", ShapeText(row.input), " kernel ", ShapeText(row.kernel),
        " stride ", ShapeText(row.stride), " padding ", ShapeText(row.padding), " dilation ",
        ShapeText(row.dilation), " ceil ", row.ceil_mode);
    SCOPED_TRACE(row_text);
    const Value input{.shape = {1, 4, row.input[0], row.input[1]}};
    Messages errors;
    CompleteArguments(kind, errors);
    ASSERT_TRUE(errors.empty()) << errors[0];
    const std::size_t slot = 0;
    const std::vector<Value> output = InferOutputs(kind, {{&input, 1}, {&slot, 1}}, errors);
    const bool refused = row.output[0] == 0;
    EXPECT_EQ(output.empty(), refused);
    EXPECT_EQ(errors.empty(), !refused);
    if (!output.empty()) {
      const std::vector<std::int64_t> expected = {1, 4, row.output[0], row.output[1]};
      EXPECT_EQ(output[0].shape, expected);
    }
  }
}

TEST(WindowsTest, FreeSizesStayFree) {
  LayerKind kind = MaxPool{.kernel_size = {2, 2}, .stride = {2, 2}};
  const Value input{.shape = {-1, 3, -1, 8}, .rows = Rows::Along(0)};
  const std::size_t slot = 0;
  Messages errors;
  CompleteArguments(kind, errors);
  const std::vector<Value> output = InferOutputs(kind, {{&input, 1}, {&slot, 1}}, errors);
  ASSERT_EQ(output.size(), 1U);
  EXPECT_EQ(output[0].shape, (Sizes{-1, 3, -1, 4}));
  EXPECT_TRUE(output[0].rows.along(0));
}

}  // namespace
}  // namespace relight::network
