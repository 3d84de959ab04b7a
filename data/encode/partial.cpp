// data/encode/partial.cpp -- append, sync, rename.
#include "data/encode/partial.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "kernels/base/check.h"

namespace sluice {

using nlohmann::json;

static Error failed(const std::string& path) {
  return Error(cat(path, ": ", std::strerror(errno)));
}

static void write_all(int file, const std::string& path, const void* data, size_t bytes) {
  for (const char* at = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t n = write(file, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw failed(path);
    at += n;
    bytes -= size_t(n);
  }
}

Partial::Partial(const std::string& out, const json& job, bool narrow)
    : folder_(out + ".partial"), job_(job), narrow_(narrow) {
  if (mkdir(folder_.c_str(), 0777) != 0 && errno != EEXIST) throw failed(folder_);
  lock_ = open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) throw failed(folder_);
  try {
    if (flock(lock_, LOCK_EX | LOCK_NB) != 0)
      throw Error(cat(folder_, ": another process is encoding into ", out));
    load();
    open_tokens();
  } catch (...) {
    close(lock_);
    throw;
  }
}

Partial::~Partial() {
  for (const int file : files_)
    if (file >= 0) close(file);
  if (lock_ >= 0) close(lock_);
}

std::string Partial::name(bool held_out) const {
  return folder_ + (held_out ? "/held_out.tokens" : "/kept.tokens");
}

void Partial::load() {
  const std::string path = folder_ + "/journal.json",
                    advice = cat("Run the command that it is of, to go on; or remove ", folder_,
                                 " to start over.");
  std::ifstream in(path);
  if (!in) return;  // killed before the first commit: nothing counts
  const json journal = json::parse(in, nullptr, false);
  try {
    const json& body = journal.at("body");
    const std::string text = body.dump();
    const auto crc = crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size());
    if (journal.at("crc") != uint32_t(crc)) throw Error(cat(path, ": is damaged. ", advice));
    const json changes = json::diff(body.at("job"), job_);
    if (!changes.empty()) {
      const json& first = changes[0];
      const json::json_pointer key(first.at("path").get<std::string>());
      const bool had = body.at("job").contains(key);
      const std::string is = first.contains("value") ? first.at("value").dump() : "not there";
      throw Error(cat(
          folder_, " is of another command or of inputs that have changed: ", key.to_string(),
          " was ", had ? body.at("job").at(key).dump() : "not there", ", is ", is, ". ", advice));
    }
    const json& p = body.at("place");
    place_ = {.input = p.at("input"),
              .byte = p.at("byte"),
              .line = p.at("line"),
              .crc = p.at("crc"),
              .inside = p.at("inside"),
              .held_out = p.at("held_out")};
    text_bytes_ = body.at("text_bytes");
    for (size_t s = 0; s < 2; ++s) {
      const json& side = body.at("sides")[s];
      sides_[s] = {side.at("tokens"), side.at("documents"), side.at("crc")};
    }
  } catch (const json::exception&) {
    throw Error(cat(path, ": is damaged. ", advice));
  }
  resumed_ = committed_ = true;
}

// What was written after the last commit does not count.
void Partial::open_tokens() {
  for (const bool held_out : {false, true}) {
    const std::string path = name(held_out);
    int& file = files_[held_out];
    file = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    const int64_t bytes = side(held_out).tokens * (narrow_ ? 2 : 4);
    struct stat st {};
    if (file < 0 || fstat(file, &st) != 0) throw failed(path);
    if (st.st_size < bytes)
      throw Error(cat(path, ": expected ", bytes, " bytes, found ", st.st_size, ". Remove ",
                      folder_, " to start over."));
    if (ftruncate(file, bytes) != 0) throw failed(path);
  }
}

void Partial::append(bool held_out, std::span<const int32_t> ids, int64_t documents) {
  Side& side = sides_[held_out];
  const void* data = ids.data();
  const size_t bytes = ids.size() * (narrow_ ? 2 : 4);
  if (narrow_) {
    narrow_ids_.assign(ids.begin(), ids.end());
    data = narrow_ids_.data();
  }
  write_all(files_[held_out], name(held_out), data, bytes);
  side.crc = uint32_t(crc32_z(side.crc, static_cast<const Bytef*>(data), bytes));
  side.tokens += int64_t(ids.size());
  side.documents += documents;
}

void Partial::commit(const Place& place, int64_t text_bytes) {
  place_ = place;
  text_bytes_ = text_bytes;
  for (const bool held_out : {false, true})
    if (fdatasync(files_[held_out]) != 0) throw failed(name(held_out));
  json body{{"job", job_},
            {"place",
             {{"input", place.input},
              {"byte", place.byte},
              {"line", place.line},
              {"crc", place.crc},
              {"inside", place.inside},
              {"held_out", place.held_out}}},
            {"text_bytes", text_bytes},
            {"sides", json::array()}};
  for (const Side& s : sides_)
    body["sides"].push_back({{"tokens", s.tokens}, {"documents", s.documents}, {"crc", s.crc}});
  const std::string dumped = body.dump();
  const auto crc = crc32_z(0, reinterpret_cast<const Bytef*>(dumped.data()), dumped.size());
  const std::string text = json{{"body", body}, {"crc", uint32_t(crc)}}.dump() + "\n";
  const std::string path = folder_ + "/journal.json", temporary = path + ".tmp";
  const int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) throw failed(temporary);
  try {
    write_all(file, temporary, text.data(), text.size());
    if (fsync(file) != 0) throw failed(temporary);
  } catch (...) {
    close(file);
    throw;
  }
  close(file);
  if (std::rename(temporary.c_str(), path.c_str()) != 0 || fsync(lock_) != 0) throw failed(path);
  committed_ = true;
}

void Partial::read(bool held_out, const std::function<void(std::span<const int32_t>)>& take) const {
  const Side& s = side(held_out);
  const size_t width = narrow_ ? 2 : 4;
  std::vector<char> bytes(size_t(1) << 20);
  std::vector<int32_t> ids(bytes.size() / width);
  uint32_t crc = 0;
  for (int64_t at = 0, all = s.tokens * int64_t(width); at < all;) {
    const size_t want = size_t(std::min(all - at, int64_t(bytes.size())));
    for (size_t got = 0; got < want;) {
      const ssize_t n = pread(files_[held_out], bytes.data() + got, want - got, at + int64_t(got));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw failed(name(held_out));
      if (n == 0) throw Error(name(held_out) + ": has become shorter");
      got += size_t(n);
    }
    crc = uint32_t(crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), want));
    const size_t n = want / width;
    if (narrow_)
      std::copy_n(reinterpret_cast<const uint16_t*>(bytes.data()), n, ids.begin());
    else
      std::memcpy(ids.data(), bytes.data(), want);
    take({ids.data(), n});
    at += int64_t(want);
  }
  if (crc != s.crc) throw Error(cat(name(held_out), ": crc32 expected ", s.crc, ", found ", crc));
}

void Partial::remove() {
  std::error_code ignored;  // of a result that is complete, or beside an error that is reported
  std::filesystem::remove_all(folder_, ignored);
}

}  // namespace sluice
