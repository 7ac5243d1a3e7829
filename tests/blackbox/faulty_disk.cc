// A disk that fails when a test says so. Preloaded into a real binary, it counts the steps taken on
// files below one folder, and lets some of them fail, or the process be killed before one.
//
// The file that FAULTY_DISK_PLAN names says what is to happen; without it nothing does. Its first
// line is "ID FOLDER KIND": the count begins anew with each ID, and KIND is "changes" or "all",
// with what only looks among it. Each line after that is "FIRST LAST HOW": steps FIRST to LAST fail
// with the errno HOW, or 0 for a kill. Each step is noted as "ID NUMBER NAME" in a file of the
// plan's name with ".steps" after it.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <string>

namespace {

enum class Kind { kLooks, kChanges };

// What is below goes past the functions that this file replaces.
std::string ReadPlan(const char* path) {
  const long fd = ::syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  char text[4096];
  const long size = ::syscall(SYS_read, fd, text, sizeof(text));
  ::syscall(SYS_close, fd);
  return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : "";
}

void Append(const std::string& path, const std::string& line) {
  const long fd = ::syscall(SYS_openat, AT_FDCWD, path.c_str(),
                            O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return;
  ::syscall(SYS_write, fd, line.data(), line.size());
  ::syscall(SYS_close, fd);
}

std::string PathOf(int fd) {
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = ::readlink(link.c_str(), path, sizeof(path));
  return size > 0 ? std::string(path, static_cast<std::size_t>(size)) : "";
}

std::string PathAt(int folder, const std::string& path) {
  const std::string descriptors = "/proc/self/fd/";
  if (path.compare(0, descriptors.size(), descriptors) == 0) {
    const std::size_t slash = std::min(path.find('/', descriptors.size()), path.size());
    return PathOf(std::stoi(path.substr(descriptors.size()))) + path.substr(slash);
  }
  if (!path.empty() && path.front() == '/') return path;
  return PathOf(folder) + "/" + path;
}

bool IsBelow(const std::string& path, const std::string& folder) {
  return path.compare(0, folder.size(), folder) == 0 &&
         (path.size() == folder.size() || path[folder.size()] == '/');
}

// The errno that this step is to fail with; 0 where it is to be taken. Does not return where it is
// the last.
int FaultOf(const char* name, Kind kind, const std::string& path) {
  static const char* const plan_path = std::getenv("FAULTY_DISK_PLAN");
  if (plan_path == nullptr) return 0;
  static std::mutex mutex;
  static std::string counted;
  static int step = 0;
  const std::lock_guard<std::mutex> lock(mutex);
  std::istringstream plan(ReadPlan(plan_path));
  std::string id;
  std::string folder;
  std::string kinds;
  if (!(plan >> id >> folder >> kinds) || !IsBelow(path, folder)) return 0;
  if (kind == Kind::kLooks && kinds == "changes") return 0;
  if (counted != id) {
    counted = id;
    step = 0;
  }
  ++step;
  Append(std::string(plan_path) + ".steps", id + " " + std::to_string(step) + " " + name + "\n");
  int first = 0;
  int last = 0;
  int how = 0;
  while (plan >> first >> last >> how) {
    if (step < first || step > last) continue;
    if (how != 0) return how;
    ::syscall(SYS_kill, ::getpid(), SIGKILL);
    while (true) ::pause();
  }
  return 0;
}

bool Fails(const char* name, Kind kind, const std::string& path) {
  const int before = errno;
  const int fault = FaultOf(name, kind, path);
  errno = fault != 0 ? fault : before;
  return fault != 0;
}

template <typename Function>
Function Next(Function /*same*/, const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

bool MakesFiles(int flags) { return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE; }

}  // namespace

// The real function of a name, looked up once.
#define NEXT(name)                               \
  ([] {                                          \
    static const auto next = Next(&name, #name); \
    return next;                                 \
  }())

#define REPLACE_OPEN(name)                                                 \
  extern "C" int name(const char* path, int flags, ...) {                  \
    va_list arguments;                                                     \
    va_start(arguments, flags);                                            \
    const mode_t mode = MakesFiles(flags) ? va_arg(arguments, mode_t) : 0; \
    va_end(arguments);                                                     \
    const Kind kind = MakesFiles(flags) ? Kind::kChanges : Kind::kLooks;   \
    if (Fails("open", kind, PathAt(AT_FDCWD, path))) return -1;            \
    return NEXT(name)(path, flags, mode);                                  \
  }
REPLACE_OPEN(open)
REPLACE_OPEN(open64)

#define REPLACE_OPENAT(name)                                               \
  extern "C" int name(int folder, const char* path, int flags, ...) {      \
    va_list arguments;                                                     \
    va_start(arguments, flags);                                            \
    const mode_t mode = MakesFiles(flags) ? va_arg(arguments, mode_t) : 0; \
    va_end(arguments);                                                     \
    const Kind kind = MakesFiles(flags) ? Kind::kChanges : Kind::kLooks;   \
    if (Fails("open", kind, PathAt(folder, path))) return -1;              \
    return NEXT(name)(folder, path, flags, mode);                          \
  }
REPLACE_OPENAT(openat)
REPLACE_OPENAT(openat64)

#define REPLACE_PREAD(name, offset_type)                                          \
  extern "C" ssize_t name(int fd, void* bytes, size_t size, offset_type offset) { \
    if (Fails("read", Kind::kLooks, PathOf(fd))) return -1;                       \
    return NEXT(name)(fd, bytes, size, offset);                                   \
  }
REPLACE_PREAD(pread, off_t)
REPLACE_PREAD(pread64, off64_t)

#define REPLACE_PWRITE(name, offset_type)                                               \
  extern "C" ssize_t name(int fd, const void* bytes, size_t size, offset_type offset) { \
    if (Fails("write", Kind::kChanges, PathOf(fd))) return -1;                          \
    return NEXT(name)(fd, bytes, size, offset);                                         \
  }
REPLACE_PWRITE(pwrite, off_t)
REPLACE_PWRITE(pwrite64, off64_t)

extern "C" ssize_t read(int fd, void* bytes, size_t size) {
  if (Fails("read", Kind::kLooks, PathOf(fd))) return -1;
  return NEXT(read)(fd, bytes, size);
}

extern "C" ssize_t write(int fd, const void* bytes, size_t size) {
  if (Fails("write", Kind::kChanges, PathOf(fd))) return -1;
  return NEXT(write)(fd, bytes, size);
}

extern "C" int fsync(int fd) {
  if (Fails("fsync", Kind::kChanges, PathOf(fd))) return -1;
  return NEXT(fsync)(fd);
}

extern "C" int fchmod(int fd, mode_t mode) noexcept {
  if (Fails("fchmod", Kind::kChanges, PathOf(fd))) return -1;
  return NEXT(fchmod)(fd, mode);
}

extern "C" int mkdirat(int folder, const char* path, mode_t mode) noexcept {
  if (Fails("mkdir", Kind::kChanges, PathAt(folder, path))) return -1;
  return NEXT(mkdirat)(folder, path, mode);
}

extern "C" int unlinkat(int folder, const char* path, int flags) noexcept {
  if (Fails("unlink", Kind::kChanges, PathAt(folder, path))) return -1;
  return NEXT(unlinkat)(folder, path, flags);
}

extern "C" int linkat(int from_folder, const char* from, int to_folder, const char* to,
                      int flags) noexcept {
  if (Fails("link", Kind::kChanges, PathAt(to_folder, to))) return -1;
  return NEXT(linkat)(from_folder, from, to_folder, to, flags);
}

extern "C" int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  if (Fails("rename", Kind::kChanges, PathAt(to_folder, to))) return -1;
  return NEXT(renameat)(from_folder, from, to_folder, to);
}

extern "C" int renameat2(int from_folder, const char* from, int to_folder, const char* to,
                         unsigned flags) noexcept {
  if (Fails("rename", Kind::kChanges, PathAt(to_folder, to))) return -1;
  return NEXT(renameat2)(from_folder, from, to_folder, to, flags);
}
