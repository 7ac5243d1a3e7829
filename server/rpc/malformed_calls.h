// What a client hears whose message is no message of the method: grpc++ parses it before our code
// runs and answers UNIMPLEMENTED without a word, as if the method were not there.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_RPC_MALFORMED_CALLS_H_
#define RELIGHT_SERVER_RPC_MALFORMED_CALLS_H_

#include <grpcpp/support/server_interceptor.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

namespace relight::rpc {

// Turns that answer into INVALID_ARGUMENT naming the method. The inference calls, which parse their
// bytes themselves, and methods that the server does not have pass untouched.
class MalformedCalls final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  // The services that the server has, by their full names.
  explicit MalformedCalls(const std::vector<std::string>& services);

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  std::set<std::string, std::less<>> methods_;  // As they are called: "/package.Service/Method".
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_MALFORMED_CALLS_H_
