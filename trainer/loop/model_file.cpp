// trainer/loop/model_file.cpp -- config, parameters, weights, in this order.
#include "trainer/loop/model_file.h"

#include "configs/schema.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/loop/device.h"

namespace sluice {

std::vector<NamedTensor> named_weights(const ParamStore& params) {
  std::vector<NamedTensor> list;
  for (const Shard& s : params.shards()) {
    const ParamSpec& spec = params.spec(s.id);
    if (s.master.numel() == spec.numel())
      list.push_back({spec.name, with_shape(s.master, spec.shape)});
    else
      list.push_back({spec.name, s.master, spec.shape, s.begin});
  }
  return list;
}

std::vector<NamedTensor> named_moments(const ParamStore& params, const Optimizer& optimizer) {
  std::vector<NamedTensor> list;
  for (const Optimizer::Moments& o : optimizer.moments()) {
    const std::vector<int64_t> whole = {params.spec(o.id).numel()};
    list.push_back({o.name + ".m", o.m, whole, o.begin});
    if (o.v) list.push_back({o.name + ".v", o.v, whole, o.begin});
  }
  return list;
}

LoadedModel load_model(const std::string& path, std::optional<Device> device) {
  LoadedModel m;
  m.checkpoint = find_checkpoint(path, &m.skipped);
  const CheckpointMeta meta = load_meta(m.checkpoint);
  m.config = config::load_string<Config>(meta.config_yaml, m.checkpoint.folder + "/config.yaml");
  m.params = std::make_unique<PlainStore>(
      DType::f32, device.value_or(device_of(m.config.run.device)), PlainStore::Purpose::inference);
  m.lm = std::make_unique<Lm>(m.config.model, *m.params);
  m.params->allocate();
  load_tensors(m.checkpoint, Part::weights, named_weights(*m.params));
  return m;
}

}  // namespace sluice
