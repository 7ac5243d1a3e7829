#include "base/log_fields.h"

#include <utility>

namespace relight {
namespace {

thread_local const LogScope* innermost = nullptr;

}  // namespace

LogScope::LogScope(LogFields fields) : fields_(std::move(fields)), around_(innermost) {
  innermost = this;
}

LogScope::~LogScope() { innermost = around_; }

const LogFields* LogScope::Current() {
  return innermost == nullptr ? nullptr : &innermost->fields_;
}

}  // namespace relight
