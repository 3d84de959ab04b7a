// data/shards/hdf5_file.cpp -- thin calls, each with its failure in words.
#include "data/shards/hdf5_file.h"

#include "kernels/base/check.h"

namespace sluice {

void silence_hdf5() {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
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
  const H5Handle a(H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  SLUICE_CHECK(a.ok() && H5Awrite(a, H5T_NATIVE_INT64, &value) >= 0, "attribute ", name);
}
void write_attribute(hid_t file, const char* name, const std::string& value) {
  const H5Handle space = scalar_space(), type = string_type(value.size());
  const H5Handle a(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  SLUICE_CHECK(a.ok() && H5Awrite(a, type, value.c_str()) >= 0, "attribute ", name);
}

static H5Handle open_attribute(const std::string& path, hid_t file, const char* name) {
  H5Handle a(H5Aexists(file, name) > 0 ? H5Aopen(file, name, H5P_DEFAULT) : -1, H5Aclose);
  if (!a.ok()) throw Error(cat(path, ": expected attribute \"", name, "\", found none"));
  return a;
}
int64_t read_integer(const std::string& path, hid_t file, const char* name) {
  const H5Handle a = open_attribute(path, file, name);
  int64_t value = 0;
  if (H5Aread(a, H5T_NATIVE_INT64, &value) < 0)
    throw Error(cat(path, ": attribute \"", name, "\": expected an integer"));
  return value;
}
std::string read_string(const std::string& path, hid_t file, const char* name) {
  const H5Handle a = open_attribute(path, file, name);
  const H5Handle type(H5Aget_type(a), H5Tclose);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0)
    throw Error(cat(path, ": attribute \"", name, "\": expected a string"));
  std::vector<char> text(H5Tget_size(type) + 1, 0);
  if (H5Aread(a, type, text.data()) < 0)
    throw Error(cat(path, ": attribute \"", name, "\": cannot be read"));
  return text.data();
}

H5Handle create_dataset(hid_t file, const char* name, hid_t type) {
  const hsize_t none = 0, unlimited = H5S_UNLIMITED, chunk = 1 << 16;
  const H5Handle space(H5Screate_simple(1, &none, &unlimited), H5Sclose);
  const H5Handle create(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_chunk(create, 1, &chunk);
  H5Handle d(H5Dcreate2(file, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT), H5Dclose);
  SLUICE_CHECK(d.ok(), "data set ", name, " cannot be created");
  return d;
}

void append(hid_t dataset, hid_t type, const void* data, int64_t count) {
  if (count == 0) return;
  H5Handle space(H5Dget_space(dataset), H5Sclose);
  const auto before = hsize_t(H5Sget_simple_extent_npoints(space)), n = hsize_t(count);
  const hsize_t after = before + n;
  bool ok = H5Dset_extent(dataset, &after) >= 0;
  space = H5Handle(H5Dget_space(dataset), H5Sclose);
  H5Sselect_hyperslab(space, H5S_SELECT_SET, &before, nullptr, &n, nullptr);
  const H5Handle memory(H5Screate_simple(1, &n, nullptr), H5Sclose);
  ok = ok && H5Dwrite(dataset, type, memory, space, H5P_DEFAULT, data) >= 0;
  SLUICE_CHECK(ok, "HDF5 cannot write ", count, " elements (is the disk full?)");
}

void write_all(hid_t file, const char* name, hid_t type, const void* data, int64_t count) {
  append(create_dataset(file, name, type), type, data, count);
}

H5Handle open_dataset(const std::string& path, hid_t file, const char* name, hid_t type,
                      int64_t* count) {
  H5Handle d(H5Lexists(file, name, H5P_DEFAULT) > 0 ? H5Dopen2(file, name, H5P_DEFAULT) : -1,
             H5Dclose);
  if (!d.ok()) throw Error(cat(path, ": expected data set \"", name, "\", found none"));
  const H5Handle found(H5Dget_type(d), H5Tclose), space(H5Dget_space(d), H5Sclose);
  if (H5Tequal(found, type) <= 0)
    throw Error(cat(path, ": data set \"", name, "\": expected ", H5Tget_size(type),
                    "-byte unsigned or signed integers as the vocabulary asks, found a type of ",
                    H5Tget_size(found), " bytes",
                    H5Tget_class(found) == H5T_INTEGER ? "" : " that is no integer"));
  if (H5Sget_simple_extent_ndims(space) != 1)
    throw Error(cat(path, ": data set \"", name, "\": expected one dimension"));
  *count = H5Sget_simple_extent_npoints(space);
  return d;
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
                    " cannot be read (a truncated file?)"));
}

}  // namespace sluice
