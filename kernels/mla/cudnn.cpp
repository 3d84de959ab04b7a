// kernels/mla/cudnn.cpp -- graphs of cuDNN's frontend.
#include "kernels/mla/cudnn.h"

#include <cudnn_frontend.h>

#include <cmath>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/base/cuda_check.h"

namespace sluice {
namespace {

namespace fe = cudnn_frontend;
using Attributes = std::shared_ptr<fe::graph::Tensor_attributes>;
using Kind = CudnnAttention::Kind;

// What each tensor of a graph is called by.
enum Uid : int64_t {
  kQ = 1,
  kK,
  kV,
  kO,
  kLse,
  kMax,
  kSum,
  kDo,
  kDq,
  kDk,
  kDv,
  kLengths,
  kQAt,
  kKAt,
  kVAt,
  kOAt,
  kDoAt,
  kDqAt,
  kDvAt,
  kLseAt
};

void expect_good(fe::error_t e, const char* what) {
  SLUICE_CHECK(e.is_good(), "cuDNN, ", what, ": ", e.get_message());
}

class Builder {
 public:
  explicit Builder(const Kind& kind) : k_(kind), graph_(std::make_shared<fe::graph::Graph>()) {
    graph_->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (!k_.dense) lengths_ = index(kLengths, k_.B, fe::DataType_t::INT32);
    k_at_ = offsets(kKAt);
    q_ = rows(kQ, k_.QK, k_.q_row, k_.QK, offsets(kQAt));
    kt_ = rows(kK, k_.QK, k_.k_row, k_.QK, k_at_);
    v_ = rows(kV, k_.V, k_.v_row, k_.v_head, offsets(kVAt));
    o_at_ = offsets(kOAt), lse_at_ = offsets(kLseAt);
  }
  std::shared_ptr<fe::graph::Graph> build() {
    if (k_.direction == CudnnAttention::Direction::forward)
      forward();
    else
      backward();
    return graph_;
  }

 private:
  Attributes index(Uid uid, int64_t n, fe::DataType_t type = fe::DataType_t::INT64) {
    return graph_->tensor(fe::graph::Tensor_attributes()
                              .set_name("index" + std::to_string(uid))
                              .set_uid(uid)
                              .set_dim({n, 1, 1, 1})
                              .set_stride({1, 1, 1, 1})
                              .set_data_type(type));
  }
  Attributes offsets(Uid uid) { return k_.dense ? nullptr : index(uid, k_.B + 1); }
  // [B, H, longest, width], rows `row` elements apart and heads `head`.
  void describe(fe::graph::Tensor_attributes& t, Uid uid, int64_t width, int64_t row, int64_t head,
                const Attributes& at) const {
    t.set_name("tensor" + std::to_string(uid))
        .set_uid(uid)
        .set_dim({k_.B, k_.H, k_.longest, width})
        .set_stride({k_.longest * row, head, row, 1});
    if (!k_.dense) t.set_ragged_offset(at);
  }
  Attributes rows(Uid uid, int64_t width, int64_t row, int64_t head, const Attributes& at) {
    fe::graph::Tensor_attributes t;
    describe(t, uid, width, row, head, at);
    return graph_->tensor(t.set_data_type(fe::DataType_t::BFLOAT16));
  }
  void output(const Attributes& t, Uid uid, int64_t width, int64_t row, int64_t head,
              const Attributes& at) const {
    describe(*t, uid, width, row, head, at);
    t->set_output(true);
  }
  void describe_statistic(fe::graph::Tensor_attributes& t, Uid uid) const {
    describe(t, uid, 1, k_.lse_row, 1, lse_at_);
    if (k_.dense) t.set_stride({k_.H * k_.longest, k_.longest, 1, 1});
    t.set_data_type(fe::DataType_t::FLOAT);
  }
  Attributes statistic(Uid uid) {
    fe::graph::Tensor_attributes t;
    describe_statistic(t, uid);
    return graph_->tensor(t);
  }
  float scale() const { return float(1 / std::sqrt(double(k_.QK))); }

  template <class SdpaAttributes>
  void causal(SdpaAttributes& a) {
    a.set_name("mla")
        .set_attn_scale(scale())
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    if (!k_.dense) a.set_padding_mask(true).set_seq_len_q(lengths_).set_seq_len_kv(lengths_);
  }
  void forward() {
    fe::graph::SDPA_attributes a;
    causal(a);
    a.set_generate_stats(!k_.max);
    if (k_.max) a.set_logit_max(statistic(kMax)).set_score_sum_exp(statistic(kSum));
    auto [o, lse] = graph_->sdpa(q_, kt_, v_, a);
    output(o, kO, k_.V, k_.o_row, k_.V, o_at_);
    if (k_.max) return;
    describe_statistic(*lse, kLse);
    lse->set_output(true);
  }
  void backward() {
    fe::graph::SDPA_backward_attributes a;
    causal(a);
    if (!k_.dense) a.set_max_total_seq_len_q(k_.rows).set_max_total_seq_len_kv(k_.rows);
    a.set_deterministic_algorithm(k_.direction == CudnnAttention::Direction::backward_in_order);
    const Attributes o = rows(kO, k_.V, k_.o_row, k_.V, o_at_),
                     d_o = rows(kDo, k_.V, k_.do_row, k_.V, offsets(kDoAt));
    auto [dq, dk, dv] = graph_->sdpa_backward(q_, kt_, v_, o, d_o, statistic(kLse), a);
    output(dq, kDq, k_.QK, k_.dq_row, k_.QK, offsets(kDqAt));
    output(dk, kDk, k_.QK, k_.k_row, k_.QK, k_at_);
    output(dv, kDv, k_.V, k_.dv_row, k_.dv_head, offsets(kDvAt));
  }

  const Kind& k_;
  std::shared_ptr<fe::graph::Graph> graph_;
  Attributes q_, kt_, v_, lengths_, k_at_, o_at_, lse_at_;
};

std::unordered_map<int64_t, void*> pointers(const Kind& kind, const CudnnAttention::Data& d) {
  std::unordered_map<int64_t, void*> p{{kQ, d.q}, {kK, d.k}, {kV, d.v}, {kO, d.o}};
  if (kind.max)
    p[kMax] = d.max, p[kSum] = d.sum;
  else
    p[kLse] = d.lse;
  if (!kind.dense) {
    p[kLengths] = d.lengths, p[kQAt] = d.q_at, p[kKAt] = d.k_at, p[kVAt] = d.v_at;
    p[kOAt] = d.o_at, p[kLseAt] = d.lse_at;
  }
  if (kind.direction == CudnnAttention::Direction::forward) return p;
  p[kDo] = d.d_o, p[kDq] = d.dq, p[kDk] = d.dk, p[kDv] = d.dv;
  if (!kind.dense) p[kDoAt] = d.do_at, p[kDqAt] = d.dq_at, p[kDvAt] = d.dv_at;
  return p;
}

}  // namespace

struct CudnnAttention::State {
  struct Plan {
    std::shared_ptr<fe::graph::Graph> graph;
    int64_t workspace = 0;
  };

  State() {
    const cudnnStatus_t status = cudnnCreate(&handle);
    SLUICE_CHECK(status == CUDNN_STATUS_SUCCESS, "cudnnCreate: ", cudnnGetErrorString(status));
  }
  ~State() { (void)cudnnDestroy(handle); }

  const Plan& plan(const Kind& kind) {
    const auto found = plans.find(kind);
    if (found != plans.end()) return found->second;
    Plan p{Builder(kind).build()};
    expect_good(p.graph->build(handle, {fe::HeurMode_t::A}), "making a plan");
    expect_good(p.graph->get_workspace_size(p.workspace), "asking for the workspace");
    return plans.emplace(kind, std::move(p)).first->second;
  }

  cudnnHandle_t handle = nullptr;
  std::map<Kind, Plan> plans;
};

CudnnAttention::CudnnAttention() = default;
CudnnAttention::~CudnnAttention() = default;

void CudnnAttention::run(const Context& ctx, const Kind& kind, const Data& data,
                         const Tensor& workspace) {
  if (!state_) state_ = std::make_unique<State>();  // takes a moment: not for models without MLA
  const State::Plan& p = state_->plan(kind);
  SLUICE_CHECK(p.workspace <= workspace.bytes(), "cuDNN asks for ", p.workspace,
               " bytes of workspace, planned are ", workspace.bytes());
  const cudnnStatus_t status = cudnnSetStream(state_->handle, ctx.stream);
  SLUICE_CHECK(status == CUDNN_STATUS_SUCCESS, "cudnnSetStream: ", cudnnGetErrorString(status));
  auto memory = pointers(kind, data);
  expect_good(p.graph->execute(state_->handle, memory, workspace.data), "running a plan");
}

const char* CudnnAttention::library() {
  static const std::string name = "cuDNN " + std::to_string(cudnnGetVersion());
  return name.c_str();
}

}  // namespace sluice
