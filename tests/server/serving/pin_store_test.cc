#include "server/serving/pin_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/storage/temp_folder.h"

namespace relight::serving {
namespace {

using ::testing::HasSubstr;

TEST(PinStoreTest, PinsSurviveAndUnpinningForgets) {
  const storage::TempFolder folder;
  {
    PinStore pins = *PinStore::Open(folder.path());
    EXPECT_EQ(pins.Get("a"), std::nullopt);
    EXPECT_TRUE(pins.Set("a", 5).ok());
    EXPECT_TRUE(pins.Set("caf\xe9", 6).ok());
    EXPECT_TRUE(pins.Set("c", 7).ok());
  }
  {
    PinStore pins = *PinStore::Open(folder.path());
    EXPECT_EQ(pins.Get("a"), 5);
    EXPECT_EQ(pins.Get("caf\xe9"), 6);
    EXPECT_TRUE(pins.Set("a", std::nullopt).ok());
  }
  const PinStore pins = *PinStore::Open(folder.path());
  EXPECT_EQ(pins.Get("a"), std::nullopt);
  EXPECT_EQ(pins.Get("c"), 7);
}

TEST(PinStoreTest, WithoutAStateFolderPinsAreKeptInMemory) {
  PinStore pins = *PinStore::Open("");
  EXPECT_TRUE(pins.Set("a", 5).ok());
  EXPECT_EQ(pins.Get("a"), 5);
}

TEST(PinStoreTest, FileThatHoldsNoPinsIsRefusedByName) {
  for (const char* text : {"", "[]", "{\"a\": \"five\"}", "{\"a\":", "{\"a\": 1.5}"}) {
    const storage::TempFolder folder;
    folder.Write("pins.json", text);
    const absl::Status status = PinStore::Open(folder.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("pins.json"));
  }
}

TEST(PinStoreTest, PinThatCannotBeKeptIsNotTaken) {
  auto folder = std::make_unique<storage::TempFolder>();
  PinStore pins = *PinStore::Open(folder->path());
  folder.reset();
  EXPECT_EQ(pins.Set("a", 5).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(pins.Get("a"), std::nullopt);
}

}  // namespace
}  // namespace relight::serving
