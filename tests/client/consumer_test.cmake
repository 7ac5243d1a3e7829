# Installs relight into a folder of its own, builds the consumer project against it, and has the
# consumer ask a fake server. Run by CTest with -D for each of:
#   BUILD_DIR, CONFIG  where relight is built, and how
#   SOURCE_DIR         the consumer's
#   WORK_DIR           is emptied first
#   GENERATOR, COMPILER, LAUNCHER, FLAGS
#   ASK                a program that starts a fake server and runs "consumer TARGET double x"
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "${command}\nended with ${code}:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE "${WORK_DIR}")
foreach(component ctl client)
  run("${CMAKE_COMMAND}" --install "${BUILD_DIR}" --config "${CONFIG}" --component ${component}
      --prefix "${WORK_DIR}/prefix")
endforeach()
run("${CMAKE_COMMAND}" -S "${SOURCE_DIR}" -B "${WORK_DIR}/build" -G "${GENERATOR}"
    "-DCMAKE_PREFIX_PATH=${WORK_DIR}/prefix" "-DCMAKE_CXX_COMPILER=${COMPILER}"
    "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}" "-DCMAKE_CXX_FLAGS=${FLAGS}"
    "-DCMAKE_BUILD_TYPE=${CONFIG}")
run("${CMAKE_COMMAND}" --build "${WORK_DIR}/build" --config "${CONFIG}")
run("${ASK}" "${WORK_DIR}/build/consumer")
run("${WORK_DIR}/prefix/bin/relightctl" --version)
