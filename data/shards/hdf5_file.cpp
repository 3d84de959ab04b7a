// data/shards/hdf5_file.cpp -- thin calls, each with its failure in words.
#include "data/shards/hdf5_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "kernels/base/check.h"

namespace sluice {

static std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}
Hdf5Lock::Hdf5Lock() : lock_(library_mutex()) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

bool H5Handle::close() {
  if (id_ < 0) return true;
  const Hdf5Lock lock;
  return close_(std::exchange(id_, -1)) >= 0;
}

std::string hdf5_reason() {
  std::string text;
  auto innermost = [](unsigned n, const H5E_error2_t* e, void* out) -> herr_t {
    if (n == 0 && e->desc) *static_cast<std::string*>(out) = e->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, &text);
  // Of a failed system call HDF5 tells everything; what matters is why.
  if (const size_t at = text.find("errno = "); at != text.npos)
    return std::strerror(std::atoi(text.c_str() + at + 8));
  return text.empty() ? "no reason given" : text;
}

H5Handle open_file(const std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) throw Error(cat(path, ": ", std::strerror(errno)));
  const auto bytes = int64_t(st.st_size);
  if (!S_ISREG(st.st_mode)) throw Error(path + ": expected a token shard, found no regular file");
  if (bytes == 0) throw Error(path + ": expected a token shard, found an empty file");
  if (H5Fis_hdf5(path.c_str()) <= 0)
    throw Error(cat(path, ": expected a token shard, found ", bytes, " bytes that are not HDF5"));
  H5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file.ok())
    throw Error(cat(path, ": HDF5 cannot open its ", bytes, " bytes: ", hdf5_reason()));
  return file;
}

// Without the times of day, equal contents are equal files.
static H5Handle without_times(hid_t creation) {
  H5Handle list(H5Pcreate(creation), H5Pclose);
  H5Pset_obj_track_times(list, false);
  return list;
}

H5Handle create_file(const std::string& path) {
  const H5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  const H5Handle creation = without_times(H5P_FILE_CREATE);
  H5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose);
  if (!file.ok()) throw Error(cat(path, ": cannot be created: ", hdf5_reason()));
  return file;
}

// "u16", "f32", ... for messages.
static std::string describe(hid_t type) {
  const H5T_class_t kind = H5Tget_class(type);
  if (kind == H5T_STRING) return "string";
  if (kind != H5T_INTEGER && kind != H5T_FLOAT) return cat("HDF5 class ", int(kind));
  const char letter = kind == H5T_FLOAT ? 'f' : H5Tget_sign(type) == H5T_SGN_NONE ? 'u' : 'i';
  return cat(letter, 8 * H5Tget_size(type),
             H5Tget_order(type) == H5T_ORDER_BE ? " big-endian" : "");
}

static H5Handle scalar_space() {
  return {H5Screate(H5S_SCALAR), H5Sclose};
}
static H5Handle string_type(size_t size) {
  H5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, size + 1);
  return type;
}

void write_attribute(hid_t file, const char* name, int64_t value) {
  const H5Handle space = scalar_space();
  const H5Handle a(H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT),
                   H5Aclose);
  SLUICE_CHECK(a.ok() && H5Awrite(a, H5T_NATIVE_INT64, &value) >= 0, "attribute ", name);
}
void write_attribute(hid_t file, const char* name, const std::string& value) {
  const H5Handle space = scalar_space(), type = string_type(value.size());
  const H5Handle a(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  SLUICE_CHECK(a.ok() && H5Awrite(a, type, value.c_str()) >= 0, "attribute ", name);
}

// One value: more would not fit where it is read to.
static H5Handle open_attribute(const std::string& path, hid_t file, const char* name) {
  H5Handle a(H5Aexists(file, name) > 0 ? H5Aopen(file, name, H5P_DEFAULT) : -1, H5Aclose);
  if (!a.ok()) throw Error(cat(path, ": expected attribute \"", name, "\", found none"));
  const H5Handle space(H5Aget_space(a), H5Sclose);
  if (const auto n = H5Sget_simple_extent_npoints(space); n != 1)
    throw Error(cat(path, ": attribute \"", name, "\": expected one value, found ", n));
  return a;
}
int64_t read_integer(const std::string& path, hid_t file, const char* name) {
  const H5Handle a = open_attribute(path, file, name);
  const H5Handle type(H5Aget_type(a), H5Tclose);
  int64_t value = 0;
  if (H5Tget_class(type) != H5T_INTEGER || H5Aread(a, H5T_NATIVE_INT64, &value) < 0)
    throw Error(
        cat(path, ": attribute \"", name, "\": expected an integer, found ", describe(type)));
  return value;
}
std::string read_string(const std::string& path, hid_t file, const char* name) {
  const H5Handle a = open_attribute(path, file, name);
  const H5Handle type(H5Aget_type(a), H5Tclose);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0)
    throw Error(cat(path, ": attribute \"", name, "\": expected a string of fixed length, found ",
                    describe(type), H5Tis_variable_str(type) > 0 ? " of variable length" : ""));
  std::vector<char> text(H5Tget_size(type) + 1, 0);
  if (H5Aread(a, type, text.data()) < 0)
    throw Error(cat(path, ": attribute \"", name, "\": cannot be read"));
  return text.data();
}

static H5Handle create_chunked(hid_t file, const char* name, hid_t type, int64_t chunk,
                               bool checked) {
  const hsize_t none = 0, unlimited = H5S_UNLIMITED, n = hsize_t(chunk);
  const H5Handle space(H5Screate_simple(1, &none, &unlimited), H5Sclose);
  const H5Handle properties = without_times(H5P_DATASET_CREATE);
  H5Pset_chunk(properties, 1, &n);
  if (checked) H5Pset_fletcher32(properties);
  H5Handle d(H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose);
  SLUICE_CHECK(d.ok(), "data set ", name, ": ", hdf5_reason());
  return d;
}
H5Handle create_tokens(hid_t file, const char* name, hid_t type, int64_t chunk) {
  return create_chunked(file, name, type, chunk, false);
}
H5Handle create_table(hid_t file, const char* name, hid_t type) {
  return create_chunked(file, name, type, kTablePage, true);
}

void append(const std::string& path, hid_t dataset, hid_t type, const void* data, int64_t count) {
  if (count == 0) return;
  H5Handle space(H5Dget_space(dataset), H5Sclose);
  const auto before = hsize_t(H5Sget_simple_extent_npoints(space)), n = hsize_t(count);
  const hsize_t after = before + n;
  bool ok = H5Dset_extent(dataset, &after) >= 0;
  space = H5Handle(H5Dget_space(dataset), H5Sclose);
  H5Sselect_hyperslab(space, H5S_SELECT_SET, &before, nullptr, &n, nullptr);
  const H5Handle memory(H5Screate_simple(1, &n, nullptr), H5Sclose);
  ok = ok && H5Dwrite(dataset, type, memory, space, H5P_DEFAULT, data) >= 0;
  if (!ok) throw Error(cat(path, ": ", hdf5_reason()));
}

void write_all(hid_t file, const char* name, hid_t type, const void* data, int64_t count) {
  const auto n = hsize_t(count);
  const H5Handle space(H5Screate_simple(1, &n, nullptr), H5Sclose);
  const H5Handle properties = without_times(H5P_DATASET_CREATE);
  const H5Handle d(H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT),
                   H5Dclose);
  const bool ok = d.ok() && (n == 0 || H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
  SLUICE_CHECK(ok, "data set ", name, " of ", count, " elements: ", hdf5_reason());
}

static H5Handle open_dataset(const std::string& path, hid_t file, const char* name, hid_t type,
                             hid_t access, int64_t* count) {
  H5Handle d(H5Lexists(file, name, H5P_DEFAULT) > 0 ? H5Dopen2(file, name, access) : -1, H5Dclose);
  if (!d.ok()) throw Error(cat(path, ": expected data set \"", name, "\", found none"));
  const H5Handle found(H5Dget_type(d), H5Tclose), space(H5Dget_space(d), H5Sclose);
  if (H5Tequal(found, type) <= 0)
    throw Error(cat(path, ": data set \"", name, "\": expected ", describe(type), ", found ",
                    describe(found)));
  if (H5Sget_simple_extent_ndims(space) != 1)
    throw Error(cat(path, ": data set \"", name, "\": expected one dimension"));
  *count = H5Sget_simple_extent_npoints(space);
  return d;
}
H5Handle open_tokens(const std::string& path, hid_t file, const char* name, hid_t type,
                     int64_t* count) {
  // No chunk cache: a row of tokens is read alone, not with the whole chunk around it.
  const H5Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
  H5Pset_chunk_cache(access, 1, 0, H5D_CHUNK_CACHE_W0_DEFAULT);
  return open_dataset(path, file, name, type, access, count);
}
H5Handle open_table(const std::string& path, hid_t file, const char* name, hid_t type,
                    int64_t* count) {
  return open_dataset(path, file, name, type, H5P_DEFAULT, count);
}

void read_range(const std::string& path, hid_t dataset, const char* name, hid_t type, int64_t begin,
                int64_t count, void* out) {
  if (count == 0) return;
  const hsize_t b = hsize_t(begin), n = hsize_t(count);
  const H5Handle space(H5Dget_space(dataset), H5Sclose);
  const H5Handle memory(H5Screate_simple(1, &n, nullptr), H5Sclose);
  H5Sselect_hyperslab(space, H5S_SELECT_SET, &b, nullptr, &n, nullptr);
  if (H5Dread(dataset, type, memory, space, H5P_DEFAULT, out) < 0)
    throw Error(cat(path, ": data set \"", name, "\": elements ", begin, " to ", begin + count,
                    " cannot be read: ", hdf5_reason()));
}

}  // namespace sluice
