# relight_add_library(NAME SOURCES... [PUBLIC_DEPS ...] [PRIVATE_DEPS ...])
#   one static library per layer, with the project's warnings on and private.
# relight_add_test(NAME SOURCES... DEPS ... [LABELS ...] [WHOLE])
#   one GoogleTest binary; its cases are discovered by CTest. WHOLE makes it one case instead, for
#   binaries that take seconds to start because of what they load.

include(GoogleTest)

find_program(RELIGHT_CCACHE ccache)
if(RELIGHT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${RELIGHT_CCACHE}")
endif()

function(relight_target_options target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
  if(RELIGHT_WARNINGS_AS_ERRORS)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    target_compile_options(${target} PRIVATE -Wthread-safety)
  endif()
  if(RELIGHT_FUZZ)
    # Coverage for the fuzzer; an index out of a container's range is a finding, too.
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
    target_compile_definitions(${target} PRIVATE _GLIBCXX_ASSERTIONS)
  endif()
  if(RELIGHT_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${RELIGHT_SANITIZE}
                           -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${RELIGHT_SANITIZE})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # With the sanitizers' extra code g++ 12 takes std::regex for uninitialised.
      target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized)
    endif()
    if(RELIGHT_SANITIZE MATCHES "thread")
      # g++ warns that std::atomic_thread_fence is not instrumented; we use none of our own.
      target_compile_options(${target} PRIVATE -Wno-error=tsan)
      # protobuf's maps have two more members where this is defined, and the distribution's library
      # was built without. The standard library still learns that the sanitizer is on.
      target_compile_options(${target} PRIVATE -U__SANITIZE_THREAD__ -D_GLIBCXX_TSAN=1)
    endif()
  endif()
endfunction()

function(relight_add_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;PUBLIC_DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_include_directories(${name} PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}>)
  target_link_libraries(${name} PUBLIC ${arg_PUBLIC_DEPS} PRIVATE ${arg_PRIVATE_DEPS})
  relight_target_options(${name})
endfunction()

function(relight_add_test name)
  cmake_parse_arguments(arg "WHOLE" "" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
  relight_target_options(${name})
  if(arg_WHOLE)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT 300)
  else()
    gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60
      PROPERTIES LABELS "${arg_LABELS}" TIMEOUT 120)
  endif()
endfunction()
