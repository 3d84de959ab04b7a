// data/shards/hdf5_file.h -- what is used of HDF5's C interface, with ownership and worded errors.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace sluice {

// A handle that its closing function ends.
class H5Handle {
 public:
  H5Handle() = default;
  H5Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~H5Handle() { close(); }
  H5Handle(H5Handle&& o) noexcept : id_(std::exchange(o.id_, -1)), close_(o.close_) {}
  H5Handle& operator=(H5Handle&& o) noexcept {
    std::swap(id_, o.id_);
    std::swap(close_, o.close_);
    return *this;
  }
  operator hid_t() const { return id_; }
  bool ok() const { return id_ >= 0; }
  bool close();  // false if HDF5 could not write what it still held; nothing is open afterwards

 private:
  hid_t id_ = -1;
  herr_t (*close_)(hid_t) = nullptr;
};

// Held around calls of HDF5. The lock is one for the process, because HDF5's state is, and not
// every build of it has a lock of its own. HDF5 would also print a stack at each failure, a setting
// of each thread; here the caller words it.
class Hdf5Lock {
 public:
  Hdf5Lock();

 private:
  std::lock_guard<std::recursive_mutex> lock_;
};

// The innermost reason of this thread's last failed call.
std::string hdf5_reason();

// Throws for what is missing, empty, not HDF5, or shorter than HDF5 wrote it.
H5Handle open_file(const std::string& path);
// Replaces what is there, in the layout whose metadata, attributes included, HDF5 checksums.
H5Handle create_file(const std::string& path);

// Attributes of the root group.
void write_attribute(hid_t file, const char* name, int64_t value);
void write_attribute(hid_t file, const char* name, const std::string& value);
int64_t read_integer(const std::string& path, hid_t file, const char* name);
std::string read_string(const std::string& path, hid_t file, const char* name);

// One-dimensional data sets. `type` is the type in the file and in memory.
// Chunked and extendable: of tokens, without a checksum, so that a row is read alone; and a table
// of pages that HDF5 checks (Fletcher32) as it reads them.
H5Handle create_tokens(hid_t file, const char* name, hid_t type, int64_t chunk);
constexpr int64_t kTablePage = 4096;  // elements
H5Handle create_table(hid_t file, const char* name, hid_t type);
void append(const std::string& path, hid_t dataset, hid_t type, const void* data, int64_t count);
void write_all(hid_t file, const char* name, hid_t type, const void* data, int64_t count);
// Both check type and rank.
H5Handle open_tokens(const std::string& path, hid_t file, const char* name, hid_t type,
                     int64_t* count);
H5Handle open_table(const std::string& path, hid_t file, const char* name, hid_t type,
                    int64_t* count);
void read_range(const std::string& path, hid_t dataset, const char* name, hid_t type, int64_t begin,
                int64_t count, void* out);

}  // namespace sluice
