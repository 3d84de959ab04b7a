// trainer/loop/fingerprint.cpp -- read off the machine and the build.
#include "trainer/loop/fingerprint.h"

#include <elf.h>
#include <fmt/format.h>
#include <gnu/libc-version.h>
#include <link.h>

#include <cstring>
#include <fstream>

#include "kernels/gemm/gemm.h"

namespace sluice {

static std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(": ") + 2);
  return "unknown";
}

// The GNU build id in one segment of notes: {name size, description size, type, name, description}.
static std::string build_id_in(const char* at, const char* end) {
  while (at + sizeof(ElfW(Nhdr)) <= end) {
    ElfW(Nhdr) note;
    std::memcpy(&note, at, sizeof note);
    const char* name = at + sizeof note;
    const char* id = name + (note.n_namesz + 3) / 4 * 4;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0) {
      std::string hex;
      for (uint32_t i = 0; i < note.n_descsz; ++i)
        hex += fmt::format("{:02x}", static_cast<unsigned char>(id[i]));
      return hex;
    }
    at = id + (note.n_descsz + 3) / 4 * 4;
  }
  return "";
}

// Of the program itself, which is the first object; the linker makes it from all that it contains.
static int read_build_id(dl_phdr_info* object, size_t, void* out) {
  std::string& id = *static_cast<std::string*>(out);
  for (int i = 0; i < object->dlpi_phnum && id.empty(); ++i) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const char* at = reinterpret_cast<const char*>(object->dlpi_addr + segment.p_vaddr);
    id = build_id_in(at, at + segment.p_memsz);
  }
  return 1;  // no further objects
}

static std::string build_id() {
  std::string id;
  ::dl_iterate_phdr(read_build_id, &id);
  return id.empty() ? "unknown" : id;
}

static const char* instruction_set() {
#if defined(__AVX512F__)
  return "avx512";
#elif defined(__AVX2__)
  return "avx2";
#else
  return "baseline";
#endif
}

std::map<std::string, std::string> fingerprint(const Context& ctx) {
  return {{"build", build_id()},
          {"compiler", __VERSION__},
          {"flags", SLUICE_BUILD_FLAGS},
          {"instruction_set", instruction_set()},
          {"cpu", cpu_model()},
          {"blas", gemm_library()},
          {"libm", cat("glibc ", ::gnu_get_libc_version())},
          {"device", name(ctx.device)}};
}

}  // namespace sluice
