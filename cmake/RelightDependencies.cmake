# Everything comes from the distribution (or CMAKE_PREFIX_PATH); nothing is fetched.
# Debian ships no CMake config for protobuf, so module mode; Torch without a version, because
# Debian's 1.13 reports itself in ways that a version check trips over.
find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(libdeflate REQUIRED IMPORTED_TARGET libdeflate)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
# Not under the name re2, which the search of gRPC's own config looks at when it runs again.
pkg_check_modules(relight_re2 REQUIRED IMPORTED_TARGET re2)
pkg_check_modules(libmicrohttpd REQUIRED IMPORTED_TARGET libmicrohttpd)
if(RELIGHT_BUILD_MODEL)
  find_package(Torch REQUIRED)
endif()
if(RELIGHT_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
