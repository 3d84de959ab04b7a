#!/usr/bin/env bash
# tests/launch/install_test.sh BUILD -- `cmake --install` into a prefix that is then moved: the program runs there, finds its
# libraries without the build folder, and its configs and scripts are beside it.
set -uo pipefail
shopt -s nullglob  # scripts for clusters may be none
build=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "FAILED $*"; exit 1; }

cmake --install "$build" --prefix "$tmp/first" >"$tmp/log" 2>&1 || { cat "$tmp/log"; fail "cmake --install"; }
mv "$tmp/first" "$tmp/prefix"
prefix=$tmp/prefix
clean() { env -i PATH=/usr/bin:/bin HOME="$tmp" "$@"; }

clean "$prefix/bin/sluice" --version || fail "--version"
missing=$(clean ldd "$prefix/bin/sluice" | grep "not found")
[ -z "$missing" ] || fail "libraries: $missing"
rpath=$(readelf -d "$prefix/bin/sluice" | grep -E 'RPATH|RUNPATH')
[[ $rpath == *'$ORIGIN/../lib'* ]] || fail "the run path is '$rpath'"
[[ $rpath != *"$build"* ]] || fail "the run path leads into the build folder: $rpath"
for config in quickstart kimi-linear-48b gpu-100m bench/dense-11m; do
  clean "$prefix/bin/sluice" config "$prefix/share/sluice/configs/$config.yaml" || fail "config $config"
done
[ -e "$prefix/share/sluice/configs/figures/h100.yaml" ] || fail "no figures"
clean "$prefix/bin/sluice" plan "$prefix/share/sluice/configs/bench/dense-11m.yaml" | grep -q "masters" || fail "plan"
for script in "$prefix"/share/sluice/launch/*.sh; do
  bash -n "$script" && [ -x "$script" ] || fail "$script"
done
[ -z "$(find "$prefix" -name '*.cpp' -o -name '*.h' -o -name '*.a')" ] || fail "sources or static libraries are installed"
echo "installed: $(find "$prefix" -type f | wc -l) files, $(du -sh "$prefix" | cut -f1)"
