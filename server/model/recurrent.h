// LSTM, GRU and RNN.
#ifndef RELIGHT_SERVER_MODEL_RECURRENT_H_
#define RELIGHT_SERVER_MODEL_RECURRENT_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "server/model/operations.h"
#include "server/network/kinds.h"

namespace relight::model {

// `weights` in the order of the state dict. Gives the outputs, the final hidden states and, for
// LSTM, the final cell states.
SeveralOperation MakeRecurrent(const network::Recurrent& kind, std::vector<at::Tensor> weights);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_RECURRENT_H_
