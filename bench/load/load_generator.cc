// load_generator: sends one request over and over to a gRPC server, and prints as JSON how long its
// answers take.
//
// A closed loop keeps a number of requests in flight: each answer sends the next. It shows what a
// server can do at most, and hides how long a stall would have kept those waiting who would have
// come meanwhile (coordinated omission). An open loop sends at times of its own, whatever becomes
// of earlier requests, and counts a request's latency from when it was due, not from when the
// client got to sending it.
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/synchronization/mutex.h"
#include "bench/load/arrivals.h"
#include "bench/load/lane.h"
#include "bench/load/latencies.h"

ABSL_FLAG(std::string, target, "", "the server, as host:port");
ABSL_FLAG(std::string, method, "/inference.GRPCInferenceService/ModelInfer", "what to call");
ABSL_FLAG(std::string, request, "", "file with the serialised request");
ABSL_FLAG(int, connections, 2, "connections to the server, one at least for each thread");
ABSL_FLAG(int, threads, 1, "threads that send and take in answers");
ABSL_FLAG(int, in_flight, 0, "closed loop: how many requests are under way at any time");
ABSL_FLAG(double, rate, 0, "open loop: how many requests a second are due, as a Poisson process");
ABSL_FLAG(std::uint64_t, seed, 1, "open loop: of the times at which requests are due");
ABSL_FLAG(double, warm_up, 1, "seconds that are not measured, before those that are");
ABSL_FLAG(double, seconds, 5, "seconds that are measured");
ABSL_FLAG(bool, until_eof, false, "measure until standard input ends instead");
ABSL_FLAG(int, server_pid, 0, "process whose processor time is reported with the client's own");
ABSL_FLAG(std::string, answer, "", "file for the first answer, as the server serialised it");
ABSL_FLAG(
    std::string, samples, "",
    "file for all samples: pairs of float64, seconds of CLOCK_MONOTONIC at which a request was "
    "due, and seconds until its answer");

namespace relight::bench {
namespace {

// An open loop sends no more while so many are under way; those that are due are late then.
constexpr int kMostUnderWay = 20'000;

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << "load_generator: " << what << "\n";
  std::exit(1);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteFile(const std::string& path, const char* bytes, std::size_t size) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes, static_cast<std::streamsize>(size));
  if (!file.flush()) Fail("cannot write " + path);
}

void SleepUntil(std::int64_t at_ns) {
  const timespec at = {at_ns / 1'000'000'000, at_ns % 1'000'000'000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
  }
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

double OwnCpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
}

// See proc(5): the 14th and 15th field; the second may hold blanks and ends with the last ')'.
double CpuSecondsOf(int pid) {
  if (pid == 0) return 0;
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const std::string text = ReadFile(path);
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;
  double user = 0;
  double system = 0;
  if (!(fields >> user >> system)) Fail("cannot understand " + path);
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// In nanoseconds of CLOCK_MONOTONIC.
struct Plan {
  std::int64_t begin_ns = 0;
  std::int64_t measure_ns = 0;
  std::atomic<std::int64_t> end_ns = std::numeric_limits<std::int64_t>::max();
};

struct Cpu {
  double client = OwnCpuSeconds();
  double server = CpuSecondsOf(absl::GetFlag(FLAGS_server_pid));
};

class Load {
 public:
  explicit Load(const Request& request) {
    const int threads = absl::GetFlag(FLAGS_threads);
    const int connections = std::max(absl::GetFlag(FLAGS_connections) / threads, 1);
    for (int i = 0; i < threads; ++i) {
      lanes_.push_back(
          std::make_unique<Lane>(request, connections, [this](Lane& lane) { Next(lane); }));
      if (const absl::Status status = lanes_.back()->Connect(); !status.ok()) {
        Fail(std::string(status.message()));
      }
    }
    plan_.begin_ns = NowNs();
    plan_.measure_ns =
        plan_.begin_ns + static_cast<std::int64_t>(absl::GetFlag(FLAGS_warm_up) * 1e9);
    if (absl::GetFlag(FLAGS_until_eof)) return;
    plan_.end_ns = plan_.measure_ns + static_cast<std::int64_t>(absl::GetFlag(FLAGS_seconds) * 1e9);
  }

  nlohmann::ordered_json Run() {
    for (const auto& lane : lanes_) lane->MeasureFrom(plan_.measure_ns);
    // Without company a lane would stop at once.
    const int in_flight = absl::GetFlag(FLAGS_in_flight);
    for (int i = 0; i < in_flight; ++i)
      lanes_[static_cast<std::size_t>(i) % lanes_.size()]->Send(NowNs());
    std::vector<std::thread> threads;
    for (const auto& lane : lanes_) threads.emplace_back([&lane] { lane->Run(); });
    if (in_flight == 0) threads.emplace_back([this] { SendWhenDue(); });
    SleepUntil(plan_.measure_ns);
    const Cpu before;
    WaitForEnd();
    const Cpu after;
    for (std::thread& thread : threads) thread.join();
    return Report(before, after);
  }

 private:
  bool closed() const { return absl::GetFlag(FLAGS_in_flight) > 0; }

  void WaitForEnd() {
    if (!absl::GetFlag(FLAGS_until_eof)) return SleepUntil(plan_.end_ns);
    while (std::cin.get() != std::istream::traits_type::eof()) {
    }
    plan_.end_ns = NowNs();
  }

  // What an answer leads to.
  void Next(Lane& lane) {
    if (!closed()) return;
    const std::int64_t now = NowNs();
    if (now < plan_.end_ns) {
      lane.Send(now);
    } else if (lane.under_way() == 0) {
      lane.Stop();
    }
  }

  void SendWhenDue() {
    // By default the kernel may let a thread sleep 50 us longer.
    prctl(PR_SET_TIMERSLACK, 1);
    Arrivals arrivals(plan_.begin_ns, absl::GetFlag(FLAGS_rate), absl::GetFlag(FLAGS_seed));
    std::size_t turn = 0;
    for (std::int64_t due = arrivals.NextNs(); due < plan_.end_ns; due = arrivals.NextNs()) {
      if (NowNs() < due) SleepUntil(due);
      Lane& lane = *lanes_[turn++ % lanes_.size()];
      while (lane.under_way() >= kMostUnderWay / static_cast<int>(lanes_.size())) {
        SleepUntil(NowNs() + 100'000);
      }
      lane.Send(due);
    }
    for (const auto& lane : lanes_) lane->Stop();
  }

  nlohmann::ordered_json Report(const Cpu& before, const Cpu& after) const {
    Latencies all;
    nlohmann::ordered_json failed = nlohmann::ordered_json::object();
    std::uint64_t failures = 0;
    for (const auto& lane : lanes_) {
      all.Add(lane->latencies());
      for (const auto& [code, what] : lane->failures()) {
        failed[std::to_string(code)] = what.example;
        failures += what.count;
      }
      if (lane->first_answer().has_value()) SaveAnswer(*lane->first_answer());
    }
    SaveSamples(all);
    const double seconds = static_cast<double>(plan_.end_ns - plan_.measure_ns) / 1e9;
    const auto micros = [&all](double q) { return static_cast<double>(all.QuantileNs(q)) / 1e3; };
    return {{"answered", all.count()},
            {"failed", failures},
            {"failures", failed},
            {"seconds", seconds},
            {"per_second", static_cast<double>(all.count()) / seconds},
            {"mean_us", all.MeanNs() / 1e3},
            {"p50_us", micros(0.5)},
            {"p90_us", micros(0.9)},
            {"p99_us", micros(0.99)},
            {"p99_9_us", micros(0.999)},
            {"max_us", micros(1)},
            {"client_cpu_seconds", after.client - before.client},
            {"server_cpu_seconds", after.server - before.server}};
  }

  static void SaveAnswer(const std::string& answer) {
    const std::string path = absl::GetFlag(FLAGS_answer);
    if (!path.empty()) WriteFile(path, answer.data(), answer.size());
  }

  static void SaveSamples(const Latencies& all) {
    const std::string path = absl::GetFlag(FLAGS_samples);
    if (path.empty()) return;
    std::vector<double> numbers;
    numbers.reserve(2 * all.count());
    for (const Sample& sample : all.samples()) {
      numbers.push_back(static_cast<double>(sample.due_ns) / 1e9);
      numbers.push_back(static_cast<double>(sample.latency_ns) / 1e9);
    }
    WriteFile(path, reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(double));
  }

  Plan plan_;
  std::vector<std::unique_ptr<Lane>> lanes_;
};

void CheckFlags() {
  if (absl::GetFlag(FLAGS_target).empty()) Fail("--target is missing");
  if (absl::GetFlag(FLAGS_threads) < 1) Fail("--threads must be 1 or more");
  const bool closed = absl::GetFlag(FLAGS_in_flight) > 0;
  const bool open = absl::GetFlag(FLAGS_rate) > 0;
  if (closed == open) Fail("say either --in_flight, for a closed loop, or --rate, for an open one");
  if (closed && absl::GetFlag(FLAGS_in_flight) < absl::GetFlag(FLAGS_threads)) {
    Fail("--in_flight must be as many as --threads or more");
  }
}

}  // namespace
}  // namespace relight::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "load_generator --target=HOST:PORT --request=FILE --in_flight=N|--rate=R");
  absl::ParseCommandLine(argc, argv);
  // Debian builds Abseil with its search for deadlocks on, which costs gRPC a third.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  relight::bench::CheckFlags();
  const grpc::Slice message(relight::bench::ReadFile(absl::GetFlag(FLAGS_request)));
  const relight::bench::Request request = {absl::GetFlag(FLAGS_target), absl::GetFlag(FLAGS_method),
                                           grpc::ByteBuffer(&message, 1)};
  std::cout << relight::bench::Load(request).Run().dump() << "\n";
  return 0;
}
