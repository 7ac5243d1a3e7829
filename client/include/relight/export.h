// What the shared library shows of itself.
#ifndef RELIGHT_EXPORT_H_
#define RELIGHT_EXPORT_H_

#define RELIGHT_CLIENT_API __attribute__((visibility("default")))

#endif  // RELIGHT_EXPORT_H_
