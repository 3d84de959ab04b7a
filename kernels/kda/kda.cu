// kernels/kda/kda.cu -- bf16 tensors, f32 parameters and states.
#include "kernels/kda/cuda_general.h"
#include "kernels/kda/cuda_ops.h"

namespace sluice::cuda {

using namespace kda_gpu;

int64_t kda_workspace_bytes(const kda::Sizes& s, bool keeps) {
  if (!on_tensor_cores(s)) return general_workspace_bytes(s, keeps);
  return Memory(nullptr, s, keeps).bytes;
}

// Rows are read 16 bytes at a time.
static void check_rows(const Tensor& t, const char* label) {
  SLUICE_CHECK(t.stride[0] % 8 == 0 && reinterpret_cast<uintptr_t>(t.data) % 16 == 0, label, " is ",
               to_string(t), ", rows ", t.stride[0],
               " elements apart, not at multiples of 16 bytes");
}
template <class Args>
static void check_inputs(const Args& a) {
  check_rows(a.q, "q"), check_rows(a.k, "k"), check_rows(a.v, "v"), check_rows(a.g, "g");
}
static void check_type(const Tensor& q) {
  SLUICE_CHECK(q.dtype == DType::bf16, "q is ", to_string(q), ", expected bf16");
}

void kda_forward(const Context& ctx, const KdaForward& a, const Tensor& workspace) {
  const kda::Sizes s = kda::sizes_of(a);
  check_type(a.q);
  if (!on_tensor_cores(s)) return general_forward(ctx, a, s, workspace);
  check_inputs(a);
  check_rows(a.o, "o");
  if (s.documents == 0) return;
  const Memory m(workspace.data, s, bool(a.saved));
  number_chunks(ctx, a.cu_seqlens, s, m);
  prepare(ctx, a, s, m);
  scan(ctx, a, s, m);
}

int64_t kda_backward_bytes(const kda::Sizes& s, bool adds_dv) {
  if (!on_tensor_cores(s)) return general_backward_bytes(s);
  return BackwardMemory(nullptr, s, adds_dv).bytes;
}

void kda_backward(const Context& ctx, const KdaBackward& a, const Tensor& memory) {
  const kda::Sizes s = kda::sizes_of(a);
  check_type(a.q);
  if (!on_tensor_cores(s)) return general_backward(ctx, a, s, memory);
  check_inputs(a);
  check_rows(a.d_o, "d_o"), check_rows(a.dv.t, "dv");
  check_rows(a.dq.t, "dq"), check_rows(a.dk.t, "dk"), check_rows(a.dg.t, "dg");
  const Memory m(a.saved.data, s, true);
  const BackwardMemory b(memory.data, s, a.dv.add);
  if (s.documents > 0) scan_backward(ctx, a, s, m, b);
  gradients(ctx, a, s, m, b);
}

}  // namespace sluice::cuda
