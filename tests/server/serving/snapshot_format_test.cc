#include "server/serving/snapshot_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace relight::serving {
namespace {

using storage::Format;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kAsSource = SnapshotFormat::kAsSource;
constexpr auto kBundle = SnapshotFormat::kBundle;
constexpr auto kStateDict = SnapshotFormat::kStateDict;
constexpr auto kSafetensors = SnapshotFormat::kSafetensors;

const SnapshotOrigin kFromBundle = {"run-1.pt", Format::kZip, true};
const SnapshotOrigin kFromStateDict = {"run-1.pt", Format::kZip, false};
const SnapshotOrigin kFromSafetensors = {"run-1.safetensors", Format::kSafetensors, false};

struct Case {
  const SnapshotOrigin& origin;
  SnapshotFormat asked;
  const char* path;
  bool weights_only;
  SnapshotFormat chosen;
};

TEST(ChooseSnapshotFormatTest, FollowsTheRequestThenThePathThenTheSource) {
  const Case cases[] = {
      {kFromBundle, kAsSource, "", false, kBundle},
      {kFromBundle, kAsSource, "", true, kStateDict},
      {kFromBundle, kAsSource, "a.pt", false, kBundle},
      {kFromBundle, kAsSource, "a.safetensors", false, kSafetensors},
      {kFromBundle, kAsSource, "a.safetensors", true, kSafetensors},
      {kFromBundle, kBundle, "a.bin", false, kBundle},
      {kFromBundle, kBundle, "a.whatever", false, kBundle},
      {kFromBundle, kStateDict, "a.pt", false, kStateDict},
      {kFromBundle, kStateDict, "a.pt", true, kStateDict},
      {kFromBundle, kSafetensors, "", false, kSafetensors},
      {kFromBundle, kSafetensors, "a", false, kSafetensors},
      {kFromStateDict, kAsSource, "", false, kStateDict},
      {kFromStateDict, kAsSource, "a.safetensors", false, kSafetensors},
      {kFromStateDict, kStateDict, "", false, kStateDict},
      {kFromSafetensors, kAsSource, "", false, kSafetensors},
      {kFromSafetensors, kAsSource, "", true, kSafetensors},
      {kFromSafetensors, kAsSource, "a", false, kSafetensors},
      {kFromSafetensors, kAsSource, "a.pth", false, kStateDict},
      {kFromSafetensors, kStateDict, "", false, kStateDict},
      {{"legacy.pt", Format::kLegacyStream, true}, kAsSource, "", false, kBundle},
  };
  for (const Case& c : cases) {
    const absl::StatusOr<SnapshotFormat> chosen = ChooseSnapshotFormat(
        {.path = c.path, .weights_only = c.weights_only, .format = c.asked}, c.origin);
    ASSERT_TRUE(chosen.ok()) << c.origin.file << " " << c.path << ": " << chosen.status();
    EXPECT_EQ(Name(*chosen), Name(c.chosen)) << c.origin.file << " " << c.path;
  }
}

absl::Status Refusal(SnapshotFormat format, const char* path, bool weights_only,
                     const SnapshotOrigin& origin = kFromBundle) {
  return ChooseSnapshotFormat({.path = path, .weights_only = weights_only, .format = format},
                              origin)
      .status();
}

TEST(ChooseSnapshotFormatTest, AContradictionNamesBoth) {
  for (const auto& [format, path] :
       {std::pair(kSafetensors, "a/b.pt"), std::pair(kSafetensors, "a/b.ckpt"),
        std::pair(kBundle, "a/b.safetensors"), std::pair(kStateDict, "a/b.safetensors")}) {
    const absl::Status status = Refusal(format, path, false);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(std::string(Name(format))), HasSubstr(path)));
  }
  const absl::Status status = Refusal(kBundle, "", true);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("bundle"), HasSubstr("weights_only")));
}

TEST(ChooseSnapshotFormatTest, WhatWasNoBundleCannotBecomeOne) {
  for (const SnapshotOrigin& origin : {kFromStateDict, kFromSafetensors}) {
    const absl::Status status = Refusal(kBundle, "", false, origin);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("bundle"), HasSubstr(origin.file), HasSubstr("state-dict")));
  }
}

TEST(SnapshotSuffixTest, SaysWhatIsInside) {
  EXPECT_EQ(SuffixOf(kSafetensors), ".safetensors");
  EXPECT_EQ(SuffixOf(kBundle), ".pt");
  EXPECT_EQ(SuffixOf(kStateDict), ".pt");
}

}  // namespace
}  // namespace relight::serving
