// The vision transformer, as torchvision/models/vision_transformer.py has it.
#include "absl/strings/str_cat.h"
#include "server/network/families/expansion.h"

namespace relight::network {
namespace {

LayerNorm Norm(const VisionTransformer& family) {
  return {.normalized_shape = {family.hidden_dim}, .eps = 1e-6};
}

Entries EncoderBlock(const VisionTransformer& family) {
  const std::int64_t width = family.hidden_dim;
  return {Put("ln_1", Norm(family)),
          Put("self_attention",
              MultiheadAttention{
                  .embed_dim = width, .num_heads = family.num_heads, .batch_first = true}),
          Put("attended", Elementwise{}, {"self_attention", "input"}),
          Put("ln_2", Norm(family)),
          PutBlock("mlp", {Put("0", Linear{.in_features = width, .out_features = family.mlp_dim}),
                           Put("1", Gelu{}),
                           Put("3", Linear{.in_features = family.mlp_dim, .out_features = width})}),
          Put("", Elementwise{}, {"attended", "mlp"})};
}

Entries Heads(const VisionTransformer& family) {
  std::int64_t in = family.hidden_dim;
  Entries entries;
  if (family.representation_size) {
    entries.push_back(
        Put("pre_logits", Linear{.in_features = in, .out_features = *family.representation_size}));
    entries.push_back(Put("act", Activation{.op = ActivationOp::kTanh}));
    in = *family.representation_size;
  }
  entries.push_back(Put("head", Linear{.in_features = in, .out_features = family.num_classes}));
  return entries;
}

}  // namespace

std::vector<FamilyInput> InputsOf(const VisionTransformer& family) {
  return ImageInput(family.in_channels, family.image_size);
}

void ExpandInto(const VisionTransformer& family, Expansion& out) {
  CheckDivides("image_size", family.image_size, "patch_size", family.patch_size, out.errors);
  CheckDivides("hidden_dim", family.hidden_dim, "num_heads", family.num_heads, out.errors);
  if (!out.errors.empty()) return;
  const std::int64_t width = family.hidden_dim;
  const std::int64_t patches = family.image_size / family.patch_size;
  Entries encoder = {Put("pos_embedding", Parameter{.shape = {1, patches * patches + 1, width}}),
                     Put("", Elementwise{}, {"input", "pos_embedding"})};
  for (std::int64_t i = 0; i < family.num_layers; ++i) {
    encoder.push_back(PutBlock(absl::StrCat("layers.encoder_layer_", i), EncoderBlock(family)));
  }
  encoder.push_back(Put("ln", Norm(family)));
  Conv projection = {.in_channels = family.in_channels,
                     .out_channels = width,
                     .kernel_size = {family.patch_size},
                     .stride = {family.patch_size}};
  out.network.entries = {Put("conv_proj", std::move(projection)),
                         Put("", Flatten{.start_dim = 2}),
                         Put("patches", Transpose{.dim0 = 1, .dim1 = 2}),
                         Put("class_token", Parameter{.shape = {1, 1, width}}),
                         Put("batch_class_token", ExpandAs{.dim = {0}}, {"class_token", "patches"}),
                         Put("", Concat{.dim = 1}, {"batch_class_token", "patches"}),
                         PutBlock("encoder", std::move(encoder)),
                         Put("", Select{.dim = 1, .index = 0}),
                         PutBlock("heads", Heads(family))};
}

}  // namespace relight::network
