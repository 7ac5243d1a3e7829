// relightctl: the program.
#include <cstdlib>
#include <string>
#include <vector>

#include "client/ctl/command.h"

int main(int argc, char** argv) {
  // gRPC's own log lines say nothing that the status does not; the user's setting wins.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  return relight::ctl::RunRelightctl(std::vector<std::string>(argv + 1, argv + argc));
}
