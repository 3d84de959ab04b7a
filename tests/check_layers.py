"""Every #include "folder/..." must be of the file's own folder or of one its CMake target DEPENDS on.

usage: check_layers.py ROOT LAYERS      LAYERS has lines "folder: dependency dependency"
Prints one line a violation; exits 1 if there is any. Direct dependencies only: what a file includes,
its folder must declare.
"""
import pathlib
import re
import sys


def read_layers(path):
    deps = {}
    for line in pathlib.Path(path).read_text().splitlines():
        folder, rest = line.split(":")
        deps.setdefault(folder, []).extend(rest.split())
    return deps


def reachable(deps, folder):
    seen, todo = set(), list(deps[folder])
    while todo:
        f = todo.pop()
        if f not in seen:
            seen.add(f)
            todo += deps[f]
    return seen


def check(root, deps):
    root = pathlib.Path(root)

    def owner(path):  # the deepest module folder that contains path
        return max((f for f in deps if path == f or path.startswith(f + "/")), key=len, default=None)

    errors = [f"{f}: depends on itself" for f in deps if f in reachable(deps, f)]
    top = {f.split("/")[0] for f in deps}
    sources = (p for t in top for p in (root / t).rglob("*") if p.suffix in {".h", ".cuh", ".cpp", ".cu"})
    for path in sorted(sources):
        here = owner(str(path.parent.relative_to(root)))
        for number, text in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s*(["<])([^">]+)/[^/">]+[">]', text)
            there = owner(match[2]) if match else None
            if not match or (match[1] == "<" and there is None):  # <...>: a header of some package
                continue
            where = f"{path.relative_to(root)}:{number}: {here or 'a folder of no module'} may not include"
            if here is None:
                errors.append(f"{where} {match[2]}")
            elif there is None:
                errors.append(f"{where} {match[2]} (no module of this project)")
            elif there != here and there not in deps[here]:
                errors.append(f"{where} {there}")
    return errors


if __name__ == "__main__":
    found = check(sys.argv[1], read_layers(sys.argv[2]))
    print("\n".join(found) or "layers: ok")
    sys.exit(bool(found))
