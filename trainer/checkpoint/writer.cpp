// trainer/checkpoint/writer.cpp -- snapshot, thread, report.
#include "trainer/checkpoint/writer.h"

#include <chrono>
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <utility>

#include "model/export/posix_file.h"
#include "trainer/checkpoint/exchange.h"
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

int64_t tensor_bytes(const std::vector<NamedTensor>& tensors) {
  int64_t bytes = 0;
  for (const NamedTensor& n : tensors) bytes += n.t.bytes();
  return bytes;
}

void probe(const std::string& folder, int rank) {
  make_folder(folder);
  const std::string name = folder + "/.tmp-probe-" + std::to_string(rank);
  replace_text(name, "can this folder be written to?\n");
  remove_tree(name);
}

}  // namespace

CheckpointWriter::CheckpointWriter(const std::string& run_dir, const Retention& retention,
                                   Mode mode, std::vector<NamedTensor> weights,
                                   std::vector<NamedTensor> optimizer, Comm* ranks)
    : run_dir_(run_dir),
      retention_(retention),
      mode_(mode),
      weights_(std::move(weights)),
      optimizer_(std::move(optimizer)) {
  const std::string folder = checkpoints_folder(run_dir);
  if (ranks && ranks->size() > 1) {
    ranks_ = ranks;
    shared_ = std::make_unique<SharedSave>(*ranks, run_dir, retention, &weights_, &optimizer_);
    // Every rank writes: it may be another machine's mount.
    on_all_ranks(*ranks, [&] { probe(folder, ranks->rank()); });
  } else {
    probe(folder, 0);
  }
  if (direct()) return;
  snapshot_ = Buffer(DType::u8, {padded_bytes(weights_) + padded_bytes(optimizer_)});
  char* at = static_cast<char*>(snapshot_.view().data);
  snapshot_weights_ = lay_out(weights_, at);
  snapshot_optimizer_ = lay_out(optimizer_, at);
}

CheckpointWriter::~CheckpointWriter() {
  if (!shared_) {
    wait();
  } else if (phase_ != Phase::none) {  // an error ends the run: other ranks may not be listening
    if (thread_.joinable()) thread_.join();
    if (current_.error.empty()) current_.error = "the run ended before all ranks had written";
    finished_.push_back(std::move(current_));
  }
  for (const SaveReport& r : finished_)
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

void CheckpointWriter::save(const CheckpointMeta& meta) {
  const double begin = seconds();
  wait();
  const double waited = seconds() - begin;
  current_ = {};
  current_.step = meta.step;
  current_.waited_seconds = waited;
  current_.bytes = shared_ ? shared_->bytes() : tensor_bytes(weights_) + tensor_bytes(optimizer_);
  if (shared_ && !open_shared(meta)) return;
  if (!direct()) {
    copy_all(weights_, snapshot_weights_);
    copy_all(optimizer_, snapshot_optimizer_);
  }
  const auto& weights = direct() ? weights_ : snapshot_weights_;
  const auto& optimizer = direct() ? optimizer_ : snapshot_optimizer_;
  begun_ = seconds();
  if (shared_)
    start(Phase::writing, [this, &weights, &optimizer] { shared_->write(weights, optimizer); });
  else
    start(Phase::publishing, [this, meta, &weights, &optimizer] {
      keep(save_checkpoint(run_dir_, meta, weights, optimizer, retention_));
    });
  if (mode_ == Mode::sync) wait();
  // Of a save that is over the report is made.
  (phase_ == Phase::none ? finished_.back() : current_).blocked_seconds = seconds() - begin;
}

bool CheckpointWriter::open_shared(const CheckpointMeta& meta) {
  current_.error = shared_->open(meta);
  if (current_.error.empty()) return true;
  finished_.push_back(std::move(current_));
  return false;
}

void CheckpointWriter::keep(SaveResult result) {
  current_.folder = std::move(result.saved.folder);
  current_.problems = std::move(result.problems);
}

void CheckpointWriter::start(Phase phase, std::function<void()> work) {
  phase_ = phase;
  done_ = false;
  thread_ = std::thread([this, work = std::move(work)] {
    try {
      work();
    } catch (const std::exception& e) {  // of any kind: a thread has nobody to throw to
      current_.error = e.what();
    }
    current_.write_seconds = seconds() - begun_;
    done_ = true;
  });
}

bool CheckpointWriter::advance() {
  if (phase_ == Phase::none) return true;
  if (shared_ ? !all_ranks(*ranks_, done_) : !done_) return false;
  if (thread_.joinable()) thread_.join();
  if (shared_ && phase_ == Phase::writing) {
    current_.error = shared_->gather(current_.error);
    if (current_.error.empty()) {
      phase_ = Phase::publishing;
      if (ranks_->rank() == 0) start(Phase::publishing, [this] { keep(shared_->publish()); });
      return false;
    }
  } else if (shared_) {
    tell_report();
  }
  phase_ = Phase::none;
  finished_.push_back(std::move(current_));
  return true;
}

// What rank 0 knows.
void CheckpointWriter::tell_report() {
  const nlohmann::json mine = {current_.folder, current_.error, current_.problems,
                               current_.write_seconds};
  const nlohmann::json j = nlohmann::json::parse(broadcast_text(*ranks_, mine.dump()));
  current_.folder = j[0];
  current_.error = j[1];
  current_.problems = j[2].get<std::vector<std::string>>();
  current_.write_seconds = j[3];
}

// One rank waits for its thread; of many, each keeps asking.
void CheckpointWriter::wait() {
  if (!shared_ && thread_.joinable()) thread_.join();
  while (!advance()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

std::vector<SaveReport> CheckpointWriter::collect() {
  advance();
  return std::exchange(finished_, {});
}

std::vector<SaveReport> CheckpointWriter::finish() {
  wait();
  return std::exchange(finished_, {});
}

}  // namespace sluice
