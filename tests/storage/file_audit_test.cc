#include "storage/file_audit.h"

#include <gmock/gmock.h>

#include <string>

#include "gtest/gtest.h"
#include "storage/error.h"
#include "storage/input_file.h"
#include "tests/storage/fixtures.h"
#include "tests/storage/temp_folder.h"

namespace relight::storage {
namespace {

using ::testing::ElementsAre;

std::vector<FileAudit> Audit(const std::string& path) {
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(path);
  EXPECT_TRUE(opened.ok()) << opened.status();
  if (!opened.ok()) return {};
  const absl::StatusOr<std::vector<FileAudit>> audits = AuditFiles(*opened, {});
  EXPECT_TRUE(audits.ok()) << audits.status();
  return audits.value_or(std::vector<FileAudit>());
}

std::vector<std::string> WithStatus(const FileAudit& audit, CrcStatus status) {
  std::vector<std::string> names;
  for (const RecordAudit& record : audit.records) {
    if (record.crc == status) names.push_back(record.name);
  }
  return names;
}

TEST(FileAuditTest, EveryGoodFileHasItsShaAndNoDamage) {
  for (const auto& [name, expected] : ExpectedFixtures().at("good").items()) {
    if (expected.value("container", "") == "torchscript") continue;
    SCOPED_TRACE(name);
    const std::vector<FileAudit> audits = Audit(DataPath(name));
    ASSERT_FALSE(audits.empty());
    EXPECT_EQ(audits[0].sha256, expected.at("sha256").get<std::string>());
    EXPECT_EQ(audits[0].size_bytes, expected.at("size").get<std::uint64_t>());
    for (const FileAudit& audit : audits) {
      EXPECT_THAT(WithStatus(audit, CrcStatus::kDiffers), ElementsAre());
    }
  }
}

TEST(FileAuditTest, RecordsComeAsTheyLieInTheFile) {
  const std::vector<FileAudit> audits = Audit(DataPath("good/syn_layout_2_7.pt"));
  ASSERT_EQ(audits.size(), 1u);
  std::vector<std::string> names;
  for (const RecordAudit& record : audits[0].records) names.push_back(record.name);
  EXPECT_THAT(names, ElementsAre("data.pkl", ".format_version", ".storage_alignment", "byteorder",
                                 "data/0", "data/1", "version", ".data/serialization_id"));
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath("good/syn_layout_2_7.pt"));
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(audits[0].records[4].file_offset, opened->storages()[0].file_offset);
  EXPECT_EQ(audits[0].records[4].size_bytes, opened->storages()[0].size_bytes);
}

TEST(FileAuditTest, NamesTheRecordThatWasDamaged) {
  const std::vector<FileAudit> audits = Audit(DataPath("hostile/crc_flip_storage.pth"));
  ASSERT_EQ(audits.size(), 1u);
  EXPECT_EQ(WithStatus(audits[0], CrcStatus::kDiffers).size(), 1u);
  EXPECT_GT(WithStatus(audits[0], CrcStatus::kMatches).size(), 1u);
}

// Records that opening a checkpoint does not read are checked too, across chunks.
TEST(FileAuditTest, SeesDamageInEveryRecord) {
  const std::string path = DataPath("good/syn_align4096.pt");
  const std::string content = ReadWholeFile(path);
  const TempFolder folder;
  std::size_t found = 0;
  const FileAudit audit = Audit(path)[0];
  for (const RecordAudit& record : audit.records) {
    if (record.size_bytes == 0) continue;
    std::string damaged = content;
    damaged[record.file_offset] ^= 0x10;
    folder.Write("damaged.pt", damaged);
    const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(folder.Path("damaged.pt"));
    if (!opened.ok()) {
      EXPECT_EQ(GetErrorCode(opened.status()), ErrorCode::kCrcMismatch) << record.name;
      continue;
    }
    const absl::StatusOr<std::vector<FileAudit>> audits = AuditFiles(*opened, {});
    ASSERT_TRUE(audits.ok()) << audits.status();
    EXPECT_THAT(WithStatus((*audits)[0], CrcStatus::kDiffers), ElementsAre(record.name));
    ++found;
  }
  EXPECT_GE(found, 4u);
}

TEST(FileAuditTest, SaysWhichRecordsHaveNoChecksum) {
  const std::vector<FileAudit> audits = Audit(DataPath("good/syn_no_crc.pt"));
  ASSERT_EQ(audits.size(), 1u);
  EXPECT_FALSE(WithStatus(audits[0], CrcStatus::kAbsent).empty());
  EXPECT_TRUE(Audit(DataPath("good/model.safetensors"))[0].records.empty());
  EXPECT_TRUE(Audit(DataPath("good/model_state_legacy.pth"))[0].records.empty());
}

TEST(FileAuditTest, ShardsFollowTheirIndex) {
  const std::vector<FileAudit> audits =
      Audit(DataPath("good/hf_sharded/pytorch_model.bin.index.json"));
  ASSERT_EQ(audits.size(), 3u);
  EXPECT_EQ(audits[0].name, "pytorch_model.bin.index.json");
  EXPECT_TRUE(audits[0].records.empty());
  EXPECT_EQ(audits[1].name, "pytorch_model-00001-of-00002.bin");
  EXPECT_FALSE(audits[1].records.empty());
}

TEST(FileAuditTest, TellsHowFarItIsAndMayBeStopped) {
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath("good/many_storages.pt"));
  ASSERT_TRUE(opened.ok());
  std::uint64_t passed = 0;
  ASSERT_TRUE(AuditFiles(*opened, [&](std::uint64_t bytes) {
                passed += bytes;
                return absl::OkStatus();
              }).ok());
  EXPECT_EQ(passed, opened->files()[0].size_bytes());
  EXPECT_EQ(AuditFiles(*opened, [](std::uint64_t) { return absl::CancelledError("enough"); })
                .status()
                .code(),
            absl::StatusCode::kCancelled);
}

TEST(FileAuditTest, AFileThatIsWrittenToIsNoMoreWhatItWas) {
  const TempFolder folder;
  folder.Write("a.pt", ReadWholeFile(DataPath("good/model_state.pth")));
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(folder.Path("a.pt"));
  ASSERT_TRUE(opened.ok());
  const auto audits = AuditFiles(*opened, [&](std::uint64_t) {
    folder.Write("a.pt", "someone writes over it");
    return absl::OkStatus();
  });
  EXPECT_EQ(GetErrorCode(audits.status()), ErrorCode::kIoError) << audits.status();
}

}  // namespace
}  // namespace relight::storage
