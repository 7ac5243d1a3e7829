// Drafts from files that torch.save wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "server/config/draft.h"
#include "server/config/model_config.h"
#include "storage/checkpoint.h"
#include "tests/paths.h"

namespace relight::config {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Draft(const std::string& name) {
  const auto checkpoint =
      storage::Checkpoint::Open(absl::StrCat(RELIGHT_TEST_DATA, "/good/", name));
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  if (!checkpoint.ok()) return "";
  const auto weights = storage::FindStateDict(*checkpoint);
  EXPECT_TRUE(weights.ok()) << weights.status();
  if (!weights.ok()) return "";
  const auto text = DraftModelConfig(checkpoint->tree(), *weights, {.file_name = name});
  EXPECT_TRUE(text.ok()) << text.status();
  EXPECT_TRUE(ParseModelConfig(text.value_or(""), "net").ok()) << *text;
  return text.value_or("");
}

TEST(DraftFixturesTest, SimpleNetAsAStateDict) {
  for (const char* name : {"model_state.pth", "checkpoint.pth", "ddp_prefixed.pth",
                           "compiled_prefixed.pth", "model.safetensors"}) {
    const std::string text = Draft(name);
    EXPECT_THAT(text, HasSubstr(R"(network {
  layer { name: "fc1" linear { in_features: 10 out_features: 5 } }
  # check: the activation is not in a state dict
  layer { relu {} }
  layer { name: "fc2" linear { in_features: 5 out_features: 2 } }
}
)")) << name;
    EXPECT_THAT(text, Not(HasSubstr("leave over"))) << name;
  }
}

TEST(DraftFixturesTest, SimpleNetAsAWholeModule) {
  for (const char* name :
       {"entire_model.pth", "entire_model_legacy.pth", "syn_entire_model_2_x.pt"}) {
    const std::string text = Draft(name);
    EXPECT_THAT(text, HasSubstr(R"(network {
  layer { name: "fc1" linear { in_features: 10 out_features: 5 } }
  layer { name: "relu" relu {} }
  layer { name: "fc2" linear { in_features: 5 out_features: 2 } }
}
)")) << name;
    EXPECT_THAT(text, Not(HasSubstr("check:"))) << name;
  }
}

TEST(DraftFixturesTest, ImageNetAsAStateDict) {
  const std::string text = Draft("conv_bn_state.pth");
  EXPECT_THAT(text, HasSubstr(R"(
  layer { name: "features.0" conv2d { in_channels: 3 out_channels: 4 kernel_size: 3 padding: 1 bias: false } }
  # check: eps is not in a state dict; this is PyTorch's default, 1e-5
  layer { name: "features.1" batch_norm2d { num_features: 4 } }
  # check: the activation is not in a state dict
  layer { relu {} }
  # check: 64 features from 4 channels: the image must have 16 pixels here; a pooling layer may be missing
  layer { flatten {} }
  layer { name: "head" linear { in_features: 64 out_features: 3 } }
}
)"));
  EXPECT_THAT(text, HasSubstr("1 unexpected: scale"));
}

TEST(DraftFixturesTest, ImageNetAsAWholeModule) {
  const std::string text = Draft("conv_bn_entire.pth");
  EXPECT_THAT(text, HasSubstr(R"(network {
  layer { name: "features.0" conv2d { in_channels: 3 out_channels: 4 kernel_size: 3 padding: 1 bias: false } }
  layer { name: "features.1" batch_norm2d { num_features: 4 } }
  layer { name: "features.2" relu {} }
  # check: 64 features from 4 channels: the image must have 16 pixels here; a pooling layer may be missing
  layer { flatten {} }
  layer { name: "head" linear { in_features: 64 out_features: 3 } }
}
)"));
  EXPECT_THAT(text, HasSubstr("1 unexpected: scale"));
}

}  // namespace
}  // namespace relight::config
