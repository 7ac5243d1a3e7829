// A folder that goes away with the test, and small helpers to fill it.
#ifndef RELIGHT_TESTS_STORAGE_TEMP_FOLDER_H_
#define RELIGHT_TESTS_STORAGE_TEMP_FOLDER_H_

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

namespace relight::storage {

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "relight-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
    std::filesystem::permissions(path_, std::filesystem::perms(0755));
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string Path(std::string_view name) const { return path_ + "/" + std::string(name); }
  bool Has(std::string_view name) const { return std::filesystem::exists(Path(name)); }

  void Write(std::string_view name, std::string_view content = "x") const {
    std::ofstream(Path(name), std::ios::binary) << content;
  }
  void MakeFolder(std::string_view name) const { std::filesystem::create_directories(Path(name)); }
  void Symlink(const std::string& target, std::string_view name) const {
    std::filesystem::create_symlink(target, Path(name));
  }
  std::string Read(std::string_view name) const {
    std::ifstream file(Path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

 private:
  std::string path_;
};

}  // namespace relight::storage

#endif  // RELIGHT_TESTS_STORAGE_TEMP_FOLDER_H_
