// The command describe: a model.textproto with its graph written out.
#include "server/config/describe.h"

#include <nlohmann/json.hpp>
#include <string>

#include "base/status_macros.h"
#include "client/ctl/command.h"

namespace relight::ctl {
namespace {

constexpr char kDetails[] =
    R"(Prints the config of a model with its graph written out: inputs, outputs, and the layers and blocks
that a family such as resnet { depth: 50 } stands for. Served, what it prints is the same model, so it
is also where to begin with a network that is nearly one of a family.

CONFIG is a model.textproto or the folder that holds it. No server is asked. With --json it prints
{"model_textproto": ...}.

examples:
  relightctl describe models/resnet
  relightctl describe bert.textproto > models/mine/model.textproto
)";

absl::Status Describe(Session& session) {
  RELIGHT_ASSIGN_OR_RETURN(const std::string text,
                           config::DescribeModelConfigAt(session.positional(0)));
  if (session.json()) {
    session.PrintJson(nlohmann::ordered_json{{"model_textproto", text}});
  } else {
    session.Print(text);
  }
  return absl::OkStatus();
}

}  // namespace

Command DescribeCommand() {
  return {"describe", "CONFIG", 1,       1, "print the layers of a model.textproto",
          kDetails,   {},       Describe};
}

}  // namespace relight::ctl
