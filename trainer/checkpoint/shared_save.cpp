// trainer/checkpoint/shared_save.cpp -- who writes what, and the manifest of what all have written.
#include "trainer/checkpoint/shared_save.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "kernels/tensor/buffer.h"
#include "trainer/checkpoint/exchange.h"
#include "trainer/checkpoint/save.h"
#include "trainer/checkpoint/tensors.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr Part kParts[] = {Part::weights, Part::optimizer};

// What a rank holds: [part, name, dtype, whole shape, begin, count] each.
json holdings(const std::vector<NamedTensor>& list, Part part) {
  json all = json::array();
  for (const NamedTensor& n : list) {
    const SafetensorsEntry e = entry_of(n);
    if (n.t.numel() > 0 || e.numel() == 0)
      all.push_back({int(part), n.name, name(e.dtype), to_string(e), n.begin, n.t.numel()});
  }
  return all;
}

// The first rank that holds a piece writes it. Fills files and types.
void plan(const std::vector<std::string>& ranks, Manifest& m) {
  std::set<std::tuple<int, std::string, int64_t, int64_t>> taken;
  std::map<std::pair<int, std::string>, std::pair<std::string, size_t>> types;
  m.ranks = int64_t(ranks.size());
  for (size_t r = 0; r < ranks.size(); ++r)
    for (const json& h : json::parse(ranks[r])) {
      const int part = h[0];
      const std::string name = h[1], type = h[3];
      const int64_t begin = h[4], count = h[5];
      const auto [known, fresh] = types.try_emplace({part, name}, type, r);
      if (fresh) m.whole[Part(part)].emplace_back(name, type);
      SLUICE_CHECK(known->second.first == type, "tensor '", name, "' is ", type, " on rank ", r,
                   " and ", known->second.first, " on rank ", known->second.second);
      if (count == 0 || !taken.emplace(part, name, begin, count).second) continue;
      m.files[file_name(Part(part), int(r), int(ranks.size()))].tensors[name] = {
          .type = cat(std::string(h[2]), " [", count, "]"), .begin = begin};
    }
  std::vector<std::string> problems;
  for (const Part part : kParts) {
    m.whole.try_emplace(part);
    pieces_of(m, part, &problems);
  }
  std::string text;
  for (const std::string& p : problems) text += "\n  " + p;
  SLUICE_CHECK(problems.empty(), "the ranks' parts do not make whole tensors:", text);
}

// Leaves what is in the file that this rank writes, as flat pieces.
void keep_mine(const Manifest& m, const std::string& file, std::vector<NamedTensor>* list) {
  const auto it = m.files.find(file);
  std::erase_if(*list, [&](const NamedTensor& n) {
    return it == m.files.end() || n.t.numel() == 0 || !it->second.tensors.contains(n.name);
  });
  for (NamedTensor& n : *list) n.t = n.t.reshape({n.t.numel()});
}

}  // namespace

SharedSave::SharedSave(Comm& comm, const std::string& run_dir, const Retention& retention,
                       std::vector<NamedTensor>* weights, std::vector<NamedTensor>* optimizer)
    : comm_(comm), run_dir_(run_dir), retention_(retention) {
  json mine = holdings(*weights, Part::weights);
  for (const json& h : holdings(*optimizer, Part::optimizer)) mine.push_back(h);
  plan(gather_texts(comm, mine.dump()), manifest_);
  const int R = comm.size();
  for (int r = 0; r < R; ++r) {
    int64_t results = 0;
    for (const Part part : kParts)
      if (const auto f = manifest_.files.find(file_name(part, r, R)); f != manifest_.files.end())
        results += 2 + int64_t(f->second.tensors.size());
    longest_ = std::max(longest_, results);
  }
  keep_mine(manifest_, file_name(Part::weights, comm.rank(), R), weights);
  keep_mine(manifest_, file_name(Part::optimizer, comm.rank(), R), optimizer);
  const Buffer bytes(DType::i64, {1});
  for (const auto* list : {weights, optimizer})
    for (const NamedTensor& n : *list) *bytes.view().as<int64_t>() += n.t.bytes();
  comm.all_reduce_sum(bytes.view(), {.what = "bytes of a checkpoint"});
  bytes_ = *bytes.view().as<int64_t>();
}

std::string SharedSave::open(const CheckpointMeta& meta) {
  manifest_.meta = meta;
  folder_ = save_folder(run_dir_, meta.step);
  try {
    on_all_ranks(comm_, [&] {
      check_save(meta, retention_);
      if (comm_.rank() == 0) open_save(run_dir_, meta.step);
    });
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

void SharedSave::write(const std::vector<NamedTensor>& weights,
                       const std::vector<NamedTensor>& optimizer) {
  mine_.clear();
  for (const Part part : kParts) {
    const auto& list = part == Part::weights ? weights : optimizer;
    if (list.empty()) continue;
    const ManifestFile file =
        write_tensors(folder_ + "/" + file_name(part, comm_.rank(), comm_.size()), list);
    mine_.insert(mine_.end(), {file.bytes, int64_t(file.crc32)});
    for (const auto& item : file.tensors) mine_.push_back(int64_t(item.second.crc32));
  }
}

// What rank `rank` has written, into the manifest.
void SharedSave::fill(const int64_t* results, int rank) {
  for (const Part part : kParts) {
    const auto file = manifest_.files.find(file_name(part, rank, comm_.size()));
    if (file == manifest_.files.end()) continue;
    file->second.bytes = *results++;
    file->second.crc32 = uint32_t(*results++);
    for (auto& item : file->second.tensors) item.second.crc32 = uint32_t(*results++);
  }
}

std::string SharedSave::gather(const std::string& error) {
  const std::string all = errors_of_ranks(comm_, error);
  if (!all.empty()) {
    if (comm_.rank() == 0) drop_save(folder_);
    return all;
  }
  if (longest_ == 0) return "";
  const Buffer mine(DType::i64, {longest_}), results(DType::i64, {comm_.size() * longest_});
  std::copy(mine_.begin(), mine_.end(), mine.view().as<int64_t>());
  comm_.all_gather(mine.view(), results.view(), {.what = "checksums of a checkpoint"});
  for (int r = 0; r < comm_.size(); ++r) fill(results.view().as<int64_t>() + r * longest_, r);
  return "";
}

SaveResult SharedSave::publish() {
  try {
    seal_save(folder_, manifest_);
    return publish_save(run_dir_, folder_, manifest_.meta.step, retention_);
  } catch (...) {
    drop_save(folder_);
    throw;
  }
}

}  // namespace sluice
