// The checkpoints under tests/data and what expected.json says of them.
#ifndef RELIGHT_TESTS_STORAGE_FIXTURES_H_
#define RELIGHT_TESTS_STORAGE_FIXTURES_H_

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/paths.h"

namespace relight::storage {

inline std::string DataPath(const std::string& name) {
  return std::string(RELIGHT_TEST_DATA) + "/" + name;
}

inline std::string ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline const nlohmann::ordered_json& ExpectedFixtures() {
  static const nlohmann::ordered_json expected = [] {
    std::ifstream file(DataPath("expected.json"));
    return nlohmann::ordered_json::parse(file);
  }();
  return expected;
}

// The names, such as "good/checkpoint.pth", in one part of expected.json.
inline std::vector<std::string> FixtureNames(const std::string& part) {
  std::vector<std::string> names;
  for (const auto& item : ExpectedFixtures().at(part).items()) names.push_back(item.key());
  return names;
}

// A test's name out of a file's.
inline std::string TestNameOf(const std::string& file) {
  std::string name = file.substr(file.find('/') + 1);
  for (char& c : name) {
    if (!isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

}  // namespace relight::storage

#endif  // RELIGHT_TESTS_STORAGE_FIXTURES_H_
