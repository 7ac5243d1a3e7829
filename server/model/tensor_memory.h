// Where LibTorch's CPU tensors get their memory: large ones from blocks that are kept, because the
// C library gives blocks of more than 32 MiB back to the system at once, and their pages would
// have to be made anew at each forward.
#ifndef RELIGHT_SERVER_MODEL_TENSOR_MEMORY_H_
#define RELIGHT_SERVER_MODEL_TENSOR_MEMORY_H_

namespace relight::model {

// For all tensors of this process from now on. At most 1 GiB of what is free is kept. Call before
// any other thread uses LibTorch; again is allowed.
void KeepTensorMemory();

// Frees what is kept, for who needs memory more. Thread-safe.
void TrimTensorMemory();

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_TENSOR_MEMORY_H_
