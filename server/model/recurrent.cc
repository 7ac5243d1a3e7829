#include "server/model/recurrent.h"

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <utility>

#include "server/model/layer_tensors.h"

namespace relight::model {
namespace {

// What a layer starts from, as [layers * directions, N, width]: zeros where it is not given. One
// for all rows is stretched, which LibTorch's functions do not do, nor do they look at its size.
at::Tensor StateOf(const std::vector<at::Tensor>& arguments, std::size_t at,
                   const network::Recurrent& kind, const at::Tensor& in, std::int64_t width) {
  const std::int64_t states = kind.num_layers * (kind.bidirectional ? 2 : 1);
  const std::int64_t shape[] = {states, in.size(kind.batch_first ? 0 : 1), width};
  if (at >= arguments.size()) return at::zeros(shape, in.options());
  const at::Tensor& state = arguments[at];
  TORCH_CHECK(state.size(0) == states && state.size(2) == width, "a first state has size [",
              state.size(0), ", ", state.size(1), ", ", state.size(2), "], it needs [", states,
              ", rows, ", width, "]");
  return InTypeOf(state, in).expand(shape).contiguous();
}

}  // namespace

SeveralOperation MakeRecurrent(const network::Recurrent& kind, std::vector<at::Tensor> weights) {
  return [kind, weights = std::move(weights)](
             std::vector<at::Tensor>& arguments) -> std::vector<at::Tensor> {
    const at::Tensor in = InTypeOf(arguments[0], weights[0]);
    const std::int64_t width = kind.proj_size > 0 ? kind.proj_size : kind.hidden_size;
    const at::Tensor hidden = StateOf(arguments, 1, kind, in, width);
    if (kind.op == network::RecurrentOp::kLstm) {
      const at::Tensor cell = StateOf(arguments, 2, kind, in, kind.hidden_size);
      auto [out, last_hidden, last_cell] =
          at::lstm(in, {hidden, cell}, weights, kind.bias, kind.num_layers, /*dropout=*/0.0,
                   /*train=*/false, kind.bidirectional, kind.batch_first);
      return {out, last_hidden, last_cell};
    }
    const auto run = [&](auto* function) {
      auto [out, last_hidden] =
          function(in, hidden, weights, kind.bias, kind.num_layers, /*dropout=*/0.0,
                   /*train=*/false, kind.bidirectional, kind.batch_first);
      return std::vector<at::Tensor>{out, last_hidden};
    };
    using Function =
        std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, at::TensorList,
                                           bool, std::int64_t, double, bool, bool, bool);
    if (kind.op == network::RecurrentOp::kGru) return run(static_cast<Function*>(&at::gru));
    return kind.nonlinearity == "relu" ? run(static_cast<Function*>(&at::rnn_relu))
                                       : run(static_cast<Function*>(&at::rnn_tanh));
  };
}

}  // namespace relight::model
