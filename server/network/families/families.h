// Families: networks that are known by a few hyperparameters, under the names that their keys have
// in the library that they are from. Each expands into layers and blocks as one would write them
// down; nothing else knows of families.
//
// Hyperparameters carry the names and defaults of their home: torchvision 0.14 for images, Hugging
// Face's transformers for text.
#ifndef RELIGHT_SERVER_NETWORK_FAMILIES_FAMILIES_H_
#define RELIGHT_SERVER_NETWORK_FAMILIES_FAMILIES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "server/network/arguments.h"
#include "server/network/blocks.h"
#include "server/network/tensor_spec.h"

namespace relight::network {

// "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), "Aggregated Residual
// Transformations for Deep Neural Networks" (1611.05431: groups) and "Wide Residual Networks"
// (1605.07146: width_per_group), as torchvision/models/resnet.py has them: the stride of a
// bottleneck is in its 3x3 convolution.
struct ResNet {
  std::int64_t depth = 0;  // 18, 34, 50, 101 or 152.
  std::int64_t num_classes = 1000;
  std::int64_t groups = 1;
  std::int64_t width_per_group = 64;
  std::int64_t in_channels = 3;
};

// "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv:1409.1556), as
// torchvision/models/vgg.py has it.
struct Vgg {
  std::int64_t depth = 0;  // 11, 13, 16 or 19.
  bool batch_norm = false;
  std::int64_t num_classes = 1000;
  std::int64_t in_channels = 3;
};

// "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (arXiv:1801.04381), as
// torchvision/models/mobilenetv2.py has it.
struct MobileNetV2 {
  std::int64_t num_classes = 1000;
  double width_mult = 1;
  std::int64_t round_nearest = 8;
  std::int64_t in_channels = 3;
};

// "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale" (arXiv:2010.11929),
// as torchvision/models/vision_transformer.py has it.
struct VisionTransformer {
  std::int64_t image_size = 224;
  std::int64_t patch_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t hidden_dim = 0;
  std::int64_t mlp_dim = 0;
  std::int64_t num_classes = 1000;
  std::optional<std::int64_t> representation_size = std::nullopt;
  std::int64_t in_channels = 3;
};

// "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"
// (arXiv:1810.04805), as transformers/models/bert/modeling_bert.py has it: scores of positions that
// attention_mask hides get the least float added, and positions are 0 to n - 1.
struct Bert {
  // The class whose state dict it is: BertModel, BertForMaskedLM, BertForSequenceClassification,
  // BertForTokenClassification or BertForQuestionAnswering.
  std::string architecture = "BertModel";
  std::int64_t vocab_size = 30522;
  std::int64_t hidden_size = 768;
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 12;
  std::int64_t intermediate_size = 3072;
  std::string hidden_act = "gelu";
  std::int64_t max_position_embeddings = 512;
  std::int64_t type_vocab_size = 2;
  double layer_norm_eps = 1e-12;
  bool add_pooling_layer = true;    // Of BertModel.
  std::int64_t num_labels = 2;      // Of classifiers.
  bool tie_word_embeddings = true;  // Of BertForMaskedLM.
};

// "Language Models are Unsupervised Multitask Learners" (Radford et al. 2019), as
// transformers/models/gpt2/modeling_gpt2.py has it: each token attends to itself and those before
// it, positions are 0 to n - 1, and the weights of its "Conv1D" lie the other way round than those
// of a linear layer.
struct Gpt2 {
  std::string architecture = "GPT2LMHeadModel";  // Or "GPT2Model".
  std::int64_t vocab_size = 50257;
  std::int64_t n_positions = 1024;
  std::int64_t n_embd = 768;
  std::int64_t n_layer = 12;
  std::int64_t n_head = 12;
  std::optional<std::int64_t> n_inner = std::nullopt;  // Absent: 4 * n_embd.
  std::string activation_function = "gelu_new";
  double layer_norm_epsilon = 1e-5;
  bool tie_word_embeddings = true;  // Of GPT2LMHeadModel.
};

using Family = std::variant<ResNet, Vgg, MobileNetV2, VisionTransformer, Bert, Gpt2>;

// "resnet", "mobilenet_v2", ...: the field in model.textproto.
std::string FamilyName(const Family& family);

// The family of that name with its defaults; nullopt where there is none.
std::optional<Family> FamilyNamed(std::string_view name);

// Its hyperparameters. Valid for as long as `family` stays what and where it is.
std::vector<Argument> ArgumentsOf(Family& family);

// Declared inputs take the place of the family's own: under any name where it has one, else those
// of its inputs that a client sends. INVALID_ARGUMENT, all errors at once, one per line of the
// message, where there is no such network.
absl::StatusOr<WrittenNetwork> Expand(const Family& family,
                                      const std::vector<TensorSpec>& declared_inputs = {});

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_FAMILIES_FAMILIES_H_
