// CUDA behind the Device interface. Compiled only against a LibTorch that has CUDA.
#ifndef RELIGHT_SERVER_MODEL_CUDA_DEVICE_H_
#define RELIGHT_SERVER_MODEL_CUDA_DEVICE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "server/model/device.h"

namespace relight::model {

// How many CUDA devices the driver offers; 0 where there is no driver.
int CountCudaDevices();

// Makes the context of device `index` (which takes some hundreds of megabytes) and its two streams.
// FAILED_PRECONDITION where there is no such device.
absl::StatusOr<std::shared_ptr<Device>> MakeCudaDevice(int index);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_CUDA_DEVICE_H_
