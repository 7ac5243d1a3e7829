// model.textproto as a file: missing, odd, huge.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "server/config/model_config.h"

namespace relight::config {
namespace {

using ::testing::HasSubstr;

class ConfigFileTest : public ::testing::Test {
 protected:
  ConfigFileTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "relight-XXXXXX").string();
    folder_ = std::filesystem::path(::mkdtemp(pattern.data())) / "net";
    std::filesystem::create_directory(folder_);
  }
  ~ConfigFileTest() override { std::filesystem::remove_all(folder_.parent_path()); }

  std::filesystem::path file() const { return folder_ / "model.textproto"; }
  void Write(std::string_view text) const { std::ofstream(file()) << text; }
  absl::Status Load() const { return LoadModelConfig(folder_.string()).status(); }

  std::filesystem::path folder_;
};

constexpr char kNet[] =
    R"(network { layer { name: "fc1" linear { in_features: 10 out_features: 5 } } })";

TEST_F(ConfigFileTest, IsReadAndNamedAfterItsFolder) {
  Write(kNet);
  const auto config = LoadModelConfig(folder_.string());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "net");
  const auto dotted = LoadModelConfig((folder_ / ".").string());
  ASSERT_TRUE(dotted.ok()) << dotted.status();
  EXPECT_EQ(dotted->name, "net");
}

TEST_F(ConfigFileTest, MayBeNamedItselfWhateverItIsCalled) {
  Write(kNet);
  const auto config = LoadModelConfigAt(file().string());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "net");
  EXPECT_EQ(config->checkpoints.folder, (folder_ / "checkpoints").string());
  EXPECT_EQ(LoadModelConfigAt(folder_.string())->name, "net");
  const std::filesystem::path draft = folder_ / "draft.txt";
  std::ofstream(draft) << "\nnetwork { layer { nonsense {} } }";
  const absl::Status refused = LoadModelConfigAt(draft.string()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("draft.txt:2:"));
  EXPECT_EQ(LoadModelConfigAt((folder_ / "gone").string()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ConfigFileTest, MissingIsNotFound) {
  EXPECT_EQ(Load().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LoadModelConfig("/nonexistent/folder").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ConfigFileTest, FifoDoesNotHang) {
  ASSERT_EQ(::mkfifo(file().c_str(), 0600), 0);
  EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Load().message()), HasSubstr("not a regular file"));
}

TEST_F(ConfigFileTest, FolderIsNoFile) {
  std::filesystem::create_directory(file());
  EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Load().message()), HasSubstr("not a regular file"));
}

TEST_F(ConfigFileTest, SymlinkLoopIsRefused) {
  std::filesystem::create_symlink("model.textproto", file());
  EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ConfigFileTest, UnreadableIsPermissionDenied) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  Write(kNet);
  std::filesystem::permissions(file(), std::filesystem::perms::none);
  EXPECT_EQ(Load().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(ConfigFileTest, HugeIsRefusedUnread) {
  Write("");
  std::filesystem::resize_file(file(), std::uintmax_t{1} << 40);
  EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Load().message()), HasSubstr("more than 1048576 bytes"));
}

TEST_F(ConfigFileTest, ErrorsNameTheirLines) {
  Write("\narenas: 9\nnetwork { layer { relu {} } }");
  EXPECT_THAT(std::string(Load().message()), HasSubstr("model.textproto:2: arenas is 9"));
}

}  // namespace
}  // namespace relight::config
