// trainer/checkpoint/writer.cpp -- snapshot, thread, report.
#include "trainer/checkpoint/writer.h"

#include <chrono>
#include <cstdio>
#include <exception>
#include <utility>

#include "model/export/posix_file.h"
#include "trainer/checkpoint/folder.h"

namespace sluice {
namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t padded(const Tensor& t) {
  return (t.bytes() + 255) / 256 * 256;  // every tensor aligned as in a Buffer of its own
}

int64_t padded_bytes(const std::vector<NamedTensor>& tensors) {
  int64_t bytes = 0;
  for (const NamedTensor& n : tensors) bytes += padded(n.t);
  return bytes;
}

// The same tensors, one behind the other from `at` on, which moves to their end.
std::vector<NamedTensor> lay_out(const std::vector<NamedTensor>& tensors, char*& at) {
  std::vector<NamedTensor> out = tensors;
  for (NamedTensor& n : out) {
    n.t.data = at;
    n.t.device = Device::cpu;
    at += padded(n.t);
  }
  return out;
}

void copy_all(const std::vector<NamedTensor>& from, const std::vector<NamedTensor>& to) {
  for (size_t i = 0; i < from.size(); ++i) copy(from[i].t, to[i].t);
}

void probe(const std::string& folder) {
  make_folder(folder);
  const std::string name = folder + "/.tmp-probe";
  replace_text(name, "can this folder be written to?\n");
  remove_tree(name);
}

}  // namespace

CheckpointWriter::CheckpointWriter(const std::string& run_dir, const Retention& retention,
                                   Mode mode, std::vector<NamedTensor> weights,
                                   std::vector<NamedTensor> optimizer)
    : run_dir_(run_dir),
      retention_(retention),
      mode_(mode),
      weights_(std::move(weights)),
      optimizer_(std::move(optimizer)) {
  probe(checkpoints_folder(run_dir));
  if (direct()) return;
  snapshot_ = Buffer(DType::u8, {padded_bytes(weights_) + padded_bytes(optimizer_)});
  char* at = static_cast<char*>(snapshot_.view().data);
  snapshot_weights_ = lay_out(weights_, at);
  snapshot_optimizer_ = lay_out(optimizer_, at);
}

CheckpointWriter::~CheckpointWriter() {
  for (const SaveReport& r : finish())
    if (!r.error.empty())
      std::fprintf(stderr, "the checkpoint of step %lld was not saved: %s\n",
                   static_cast<long long>(r.step), r.error.c_str());
}

bool CheckpointWriter::direct() const {
  return mode_ == Mode::sync && (weights_.empty() || weights_.front().t.device == Device::cpu);
}

int64_t CheckpointWriter::snapshot_bytes() const {
  return direct() ? 0 : snapshot_.view().bytes();
}

void CheckpointWriter::join() {
  if (!thread_.joinable()) return;
  thread_.join();
  finished_.push_back(std::move(current_));
}

void CheckpointWriter::write(const CheckpointMeta& meta, const std::vector<NamedTensor>& weights,
                             const std::vector<NamedTensor>& optimizer) {
  const double begin = seconds();
  try {
    SaveResult result = save_checkpoint(run_dir_, meta, weights, optimizer, retention_);
    current_.folder = std::move(result.saved.folder);
    current_.problems = std::move(result.problems);
  } catch (const std::exception& e) {  // of any kind: a thread has nobody to throw to
    current_.error = e.what();
  }
  current_.write_seconds = seconds() - begin;
}

void CheckpointWriter::save(const CheckpointMeta& meta) {
  const double begin = seconds();
  join();
  const double waited = seconds() - begin;
  current_ = {};
  current_.step = meta.step;
  current_.waited_seconds = waited;
  for (const auto* list : {&weights_, &optimizer_})
    for (const NamedTensor& n : *list) current_.bytes += n.t.bytes();
  if (!direct()) {
    copy_all(weights_, snapshot_weights_);
    copy_all(optimizer_, snapshot_optimizer_);
  }
  if (mode_ == Mode::sync) {
    write(meta, direct() ? weights_ : snapshot_weights_,
          direct() ? optimizer_ : snapshot_optimizer_);
    current_.blocked_seconds = seconds() - begin;
    finished_.push_back(std::move(current_));
    return;
  }
  done_ = false;
  current_.blocked_seconds = seconds() - begin;
  thread_ = std::thread([this, meta] {
    write(meta, snapshot_weights_, snapshot_optimizer_);
    done_ = true;
  });
}

std::vector<SaveReport> CheckpointWriter::collect() {
  if (done_) join();
  return std::exchange(finished_, {});
}

std::vector<SaveReport> CheckpointWriter::finish() {
  join();
  return std::exchange(finished_, {});
}

}  // namespace sluice
